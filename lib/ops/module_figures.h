// The key figures of an adapter: one pass over its bytes, on all threads.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lora/ops/verify.h"

namespace lora {

struct Checkpoint;

using TensorFigures = std::map<std::string, TensorStatistics>;

struct AdapterFigures {
  TensorFigures tensors;               ///< every float tensor, by peft_key
  std::vector<ModuleFigures> modules;  ///< in the adapter's order
};

/// Reads every value once: tensor statistics and the products behind the updates' figures come from
/// the same reading. `base` (may be null) adds mean and norm of the targeted weights. Pages of
/// mapped files are dropped behind the pass, so own memory stays below what a few modules need.
/// The result does not depend on `threads`. Throws Error(interrupted).
AdapterFigures adapter_figures(const Adapter& adapter, const Checkpoint* base, int threads,
                               const Sinks& sinks);

}  // namespace lora
