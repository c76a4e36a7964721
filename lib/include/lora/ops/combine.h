// combine: one adapter that does what several do together.
//
// With s the scaling of a site, w the weight of an adapter and D = s * B . A its update, the
// methods give, site by site:
//
//   cat               sum of w D, exactly, at the sum of the ranks: the factors stand side by side.
//   svd               the best approximation of sum of w D at a rank, without forming any D.
//   slerp             two adapters on the great circle between their updates, t = w2 / (w1 + w2).
//   knots             U S V of the updates side by side (KnOTS, Stoica et al. 2024), TIES on the
//                     parts S V of each: one common basis, and the rank is the sum of the ranks.
//   linear            the sum of sqrt(|w s|) A, and of B likewise, with the sign in A: equal ranks;
//                     not sum of w D, since every B meets every A. The error is reported.
//   ties, dare_ties, dare_linear, magnitude_prune
//                     linear with sparse factors: equal ranks.
//   ties_svd, dare_ties_svd, dare_linear_svd, magnitude_prune_svd
//                     the same on the updates themselves, and the best approximation at a rank.
//
// Trimming keeps floor(density * n) values of a matrix, DARE drops at random and divides by the
// density, TIES elects a sign for each value and averages what agrees with it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lora/base/dtype.h"
#include "lora/base/file_system.h"
#include "lora/base/sinks.h"
#include "lora/ops/adapter_set.h"

namespace lora {

enum class CombineMethod {
  cat,
  svd,
  linear,
  ties,
  ties_svd,
  dare_linear,
  dare_linear_svd,
  dare_ties,
  dare_ties_svd,
  magnitude_prune,
  magnitude_prune_svd,
  slerp,
  knots,
};

std::string_view to_string(CombineMethod method);

/// In the order of the enumeration.
const std::vector<std::string>& combine_method_names();

/// Throws Error(usage) that lists the names.
CombineMethod combine_method_named(std::string_view name);

/// Which votes count when TIES elects a sign: the sum of the values, or of their signs.
enum class MajoritySign { total, frequency };

/// Whose numbers add_weighted_adapter gives. Both: a single adapter is always `linear`, the sign is
/// elected by values without their weights, and use_rslora of the first adapter stays, so that the
/// result is sqrt(r) times too strong. 0.20 also multiplies the scaling in twice in `svd` and all
/// methods that end in it.
enum class PeftCompat { v0_20, v0_21 };

/// "0.20", "0.20.0", "0.21.2", ...; throws Error(usage) for other releases.
PeftCompat peft_compat_named(std::string_view version);

struct CombineOptions {
  std::vector<WeightedAdapter> adapters;
  std::filesystem::path output;
  CombineMethod method = CombineMethod::cat;
  /// Rank of every site. Default: svd and *_svd the largest of the inputs at the site; slerp and
  /// knots their exact rank. Never more than the update can have.
  std::optional<std::int64_t> rank;
  std::optional<double> energy;   ///< instead of rank: the least that keeps this share of ||D||^2
  std::optional<double> density;  ///< of the sparse methods, in (0, 1]; knots: default 1
  MajoritySign majority_sign = MajoritySign::total;
  std::uint64_t seed = 0;  ///< of DARE
  std::optional<PeftCompat> compat;
  /// Number of the adapter (from 1) whose saved modules, biases and token rows are taken where
  /// several adapters bring different ones.
  std::optional<std::size_t> saved_from;
  bool any_base = false;       ///< combine although the adapters record different bases
  std::optional<DType> dtype;  ///< of what is computed; default f32
  bool force = false, dry_run = false;
  int threads = 0;
  FileSystem* file_system = nullptr;
};

/// Cosine of the updates of two adapters (positions in the list, first < second).
struct UpdatePair {
  std::size_t first = 0, second = 0;
  std::optional<double> cosine;  ///< absent where one of them has no update
};

struct CombinedModule {
  std::string module_path;
  std::vector<std::int64_t> ranks;  ///< of each adapter; 0 where it does not adapt the site
  std::int64_t rank = 0;            ///< of the result
  std::vector<UpdatePair> pairs;    ///< of adapters without their weights
  /// Distance of the result from what the method defines (linear: from the sum of w D), as a share
  /// of its norm: what the rank cost. Absent where the factors are the definition.
  std::optional<double> error;
};

struct CombineReport {
  std::filesystem::path output;
  bool is_written = false;
  CombineMethod method = CombineMethod::cat;  ///< used; a compat run of one adapter is linear
  std::vector<CombinedModule> modules;        ///< sorted by module_path
  std::vector<UpdatePair> pairs;              ///< over all modules
  std::optional<double> error;
  std::vector<std::string> saved;  ///< base parameters that the result replaces
  std::vector<std::string> notes;
  std::uint64_t bytes = 0;  ///< of the result's tensors
};

/// Throws Error(usage) for options that do not go together, no adapter, and an output that is or
/// holds an input; Error(unsupported) for updates that are no sum of products (DoRA and others), by
/// name; Error(incompatible) for adapters of different bases, sites of different shapes or, where
/// the method needs equal ones, ranks, and different saved modules; Error(malformed) for values
/// that are not finite and damaged adapters; Error(output) when the output exists or cannot be
/// written. Nothing is left behind by a failure.
CombineReport combine(const CombineOptions& options, const Sinks& sinks = {});

}  // namespace lora
