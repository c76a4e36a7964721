// extract: an adapter from two checkpoints, with the error of every module and how near it is to
// the least possible.
//
// Linear layers and Conv1D, and embeddings that changed in many rows, become LoRA factors: the
// best approximation of their difference at a rank. Everything else that changed is carried whole
// and exactly: token rows of an embedding that changed in few, biases of adapted layers, and as
// modules_to_save norms, output heads, embeddings tied to a head, and what has no low rank.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/dtype.h"
#include "lora/base/file_system.h"
#include "lora/base/sinks.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora {

struct ExtractOptions {
  const Checkpoint* base = nullptr;
  const Checkpoint* tuned = nullptr;
  std::filesystem::path output;
  /// Exactly one of the three. A rank above the full one of a module is that one; `energy` in
  /// (0, 1] is the share of each difference's squared norm to keep; `budget` in bytes of tensors,
  /// spent over all modules where it lowers the error most.
  std::optional<std::int64_t> rank;
  std::optional<double> energy;
  std::optional<std::uint64_t> budget;
  DType dtype = DType::f32;              ///< of the factors
  std::optional<std::string> base_name;  ///< recorded as base_model_name_or_path
  /// Modules whose change is left out, by path or ending behind a dot.
  std::vector<std::string> exclude_modules;
  std::uint64_t max_memory = 1'000'000'000;  ///< of work space; less means fewer threads
  bool force = false;
  bool dry_run = false;  ///< everything but the writing
  int threads = 0;
  FileSystem* file_system = nullptr;
};

/// One module that got factors.
struct ExtractedModule {
  std::string module_path;
  std::string base_name;
  std::int64_t rank = 0, full_rank = 0;
  double norm = 0;           ///< of the difference
  double error = 0;          ///< relative: of the difference, what the factors as written leave out
  double least = 0;          ///< no adapter of this rank has less; proven
  bool is_exact = false;     ///< `least` is from all singular values
  bool is_rounding = false;  ///< what is left out is no more than the rounding of the tuned weight
};

/// Something carried whole.
struct CarriedPart {
  enum class Kind { token_rows, bias, module } kind = Kind::module;
  std::string name;       ///< of the parameter
  std::int64_t rows = 0;  ///< token_rows
  std::uint64_t bytes = 0;
};

struct ExtractReport {
  std::filesystem::path output;
  Adapter adapter;                       ///< as written
  std::vector<ExtractedModule> modules;  ///< in the order of the model
  std::vector<CarriedPart> carried;
  std::vector<std::string> left_out;  ///< changed tensors of excluded modules
  std::int64_t unchanged = 0;         ///< tensors
  std::vector<std::string> notes;
  std::uint64_t bytes = 0;      ///< of all tensors
  double error = 0, least = 0;  ///< over all modules with factors together
  bool is_rounding = false;     ///< every module's error is
  std::string base_root;
};

/// Throws Error(usage) for options that contradict, an energy or rank out of range, a budget that
/// does not hold what must be carried whole, an output that is or holds an input;
/// Error(incompatible) when names or shapes of the two differ, and when nothing changed;
/// Error(unsupported) for quantised weights and changed parameters no adapter can hold;
/// Error(malformed) for values that are not finite; Error(output). Nothing is left behind by a
/// failure.
ExtractReport extract(const ExtractOptions& options, const Sinks& sinks = {});

}  // namespace lora
