// What a run will need of memory, worked out before it starts, and whether there is as much.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "lora/base/error.h"
#include "lora/engine.h"

namespace lora::engine {

/// Bytes beside what the process has already.
struct MemoryEstimate {
  std::int64_t mapped_base = 0;     ///< frozen weights that are views of the checkpoint's files
  std::int64_t allocated_base = 0;  ///< frozen weights that are converted or quantised
  std::int64_t activations = 0;     ///< what a micro-batch keeps for backward, and work space
  std::int64_t adapter = 0;         ///< trainable values, gradients, the optimizer's averages

  std::int64_t allocated() const { return allocated_base + activations + adapter; }
  std::int64_t total() const { return mapped_base + allocated(); }
};

/// Of micro-batches of `rows` sequences of `length` tokens. `model` is the one to be trained, with
/// the adapter whose values are trained.
MemoryEstimate estimate_memory(const ModelOptions& model, std::int64_t rows, std::int64_t length,
                               bool layer_checkpointing);

/// Space that there is; nullopt: nothing says.
struct AvailableMemory {
  std::optional<std::int64_t> bytes;      ///< of memory
  std::optional<std::int64_t> addresses;  ///< of address space, which mapped files have already
};
AvailableMemory find_available_memory();

/// An estimate against what there is. The estimate is good to a quarter or so: what is over by less
/// than a fifth may fit.
struct MemoryVerdict {
  enum class Kind { fits, tight, too_large };
  Kind kind = Kind::fits;
  /// "about 9.4 GB of memory (base 4.1 GB, ...), and 6.1 GB are available"
  std::string text;
};
MemoryVerdict compare_memory(const MemoryEstimate& estimate, const AvailableMemory& available);

/// Throws Error(resources) when a run is much too large, unless `any_memory`; otherwise returns a
/// warning to give, empty when there is none.
std::string require_memory(const MemoryVerdict& verdict, bool any_memory);

/// The error of a run that had begun when memory ran out; `detail` is what failed.
Error out_of_memory(const MemoryVerdict& verdict, const std::string& detail);

}  // namespace lora::engine
