// verify --merged: is this checkpoint base + adapter?
//
// PEFT's merge is fixed rounding arithmetic: D = s * (B . A) in f32, W + D rounded into the dtype
// of the weight. It is replayed element by element. Where the replay gives the merged bits, that is
// proof of the merge and of how it was made; where it does not (another processor summed in another
// order), every element must lie within one ulp of the float64 W + s * B . A.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/dtype.h"
#include "lora/base/sinks.h"
#include "lora/ops/adapter_set.h"

namespace lora {

struct Checkpoint;

/// What was shown of one tensor of the merged checkpoint.
enum class MergeProof {
  unchanged,    ///< the base's value, bit for bit (after a change of dtype, if there was one)
  saved,        ///< the adapter's own copy (modules_to_save, biases, saved embeddings), bit for bit
  merge,        ///< bit for bit what PEFT's merge gives: D added in f32, one rounding
  safe_merge,   ///< bit for bit what safe_merge=True gives: D rounded first, then the sum
  held_low,     ///< bit for bit PEFT's merge of an adapter held in the dtype of the base
  one_ulp,      ///< every element within one ulp of the float64 result plus the product's own error
  differs,      ///< none of these
  missing,      ///< expected and not in the checkpoint, or of another shape (`note`)
  not_replayed  ///< this program cannot replay the kind of change; `note` says why
};
std::string_view to_string(MergeProof proof);

struct MergedTensor {
  std::string base_name;
  std::string module_path;  ///< of the adapted module; empty for tensors without LoRA factors
  MergeProof proof = MergeProof::differs;
  /// The dtype the sum was made in, where bits were shown; else that of the merged tensor.
  DType compute = DType::f32;
  std::vector<std::int64_t> shape;  ///< of the merged tensor
  std::int64_t elements = 0;
  std::int64_t outside = 0;         ///< differs: elements beyond the bound
  std::int64_t first_outside = -1;  ///< flat index of the first of them
  double found = 0, expected = 0;   ///< values there
  double worst_ulps = 0;            ///< one_ulp, differs: largest distance in ulps of the dtype
  /// Least squares: the multiple of the expected update that explains M - W best; 1 for a right
  /// merge. Only where the update is not zero.
  std::optional<double> fitted;
  double cosine = 0;             ///< of M - W and the intended update
  double survived = 0;           ///< share of the update's energy in elements that changed at all
  double changed = 0;            ///< share of the elements that changed
  bool is_from_adapter = false;  ///< should hold the adapter's own copy, or rows of it
  bool holds_base = false;       ///< differs, from the adapter: the base's value is there instead
  std::string note;              ///< not_replayed: why; else a remark, usually empty
};

/// How a merge that is not the expected one was made, as far as the bits tell.
struct MergeExplanation {
  enum class Kind {
    none,         ///< nothing tried explains it
    not_applied,  ///< the weights are the base's
    applied_twice,
    subtracted,
    other_scale,     ///< `factor` times the expected scaling, in every tensor that differs
    rslora_ignored,  ///< alpha/r where alpha/sqrt(r) was meant, or the reverse
    transposed,      ///< the update was added transposed
    other_adapter,   ///< `adapter` is the one that fits
    other_base,      ///< tensors that no adapter touches differ as well
  };
  Kind kind = Kind::none;
  double factor = 1;
  std::filesystem::path adapter;
  std::int64_t explained = 0;  ///< tensors this holds for, of those that differ
  std::string text;            ///< one line
};

struct MergedReport {
  std::filesystem::path path;
  std::string problem;  ///< why the checkpoint could not be opened; empty otherwise
  bool is_index_problem = false;
  std::vector<MergedTensor> tensors;  ///< every expected tensor, sorted by base_name
  std::vector<std::string> left_out;  ///< missing buffers, and heads where the class is another one
  std::vector<std::string> extra;     ///< names that neither base nor adapter explains
  std::vector<std::string> adapter_keys;  ///< names of adapter tensors or wrapped modules
  bool has_adapter_config = false;        ///< adapter_config.json inside the merged directory
  std::optional<std::string> total_size;  ///< the index's, where it is wrong
  std::uint64_t total_bytes = 0;          ///< of the tensors' data
  std::vector<MergeExplanation> explanations;
  std::vector<std::string> record;  ///< what lora_merge.json claims that is not so, one line each
  std::vector<std::string> shared;  ///< what PEFT's merge did to tied matrices, one line each
  double survived = 0, cosine = 0, changed = 0;  ///< over all updated tensors
  bool has_update = false;                       ///< at least one tensor got LoRA factors

  std::int64_t count(MergeProof proof) const;
  /// Every tensor was shown to hold what it should, and none is missing or left over.
  bool is_reproduced() const;
};

struct MergedOptions {
  std::vector<const Adapter*> candidates;  ///< tried where `adapter` does not fit
  int threads = 0;
  Sinks sinks;
};

/// Replays the merge of `adapter` into `base` and compares with `merged`. Streams: memory is that
/// of a few row blocks for each thread and the factors of the modules in work. Throws
/// Error(interrupted).
MergedReport compare_merged(const Adapter& adapter, const Checkpoint& base,
                            const Checkpoint& merged, const MergedOptions& options);

/// The same for a merge of several adapters, added in this order. Other ways to have merged are not
/// looked for (`explanations` stays empty).
MergedReport compare_merged(const std::vector<WeightedAdapter>& adapters, const Checkpoint& base,
                            const Checkpoint& merged, const MergedOptions& options);

/// The merge that lora_merge.json beside a merged checkpoint records, where it is not just one
/// adapter as it is and all of them are among `known`; nullopt otherwise, and for one that cannot
/// be read. The record is a claim: compare_merged proves it.
std::optional<std::vector<WeightedAdapter>> recorded_merge(const Checkpoint& merged,
                                                           const std::vector<const Adapter*>& known,
                                                           int threads);

/// Whether rounding costs so much that a merge deserves a warning: less than half of the update's
/// energy in weights that changed at all, or a rounding error longer than the update itself (a
/// cosine of intended and realised change below 1/sqrt(2)).
bool is_lossy_merge(double survived, double cosine);

/// The report of a merged checkpoint that `error` stopped from being opened.
MergedReport unreadable_merged(const std::filesystem::path& path, const class Error& error);

}  // namespace lora
