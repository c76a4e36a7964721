// The key figures of an adapter's modules, computed on all threads.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lora/ops/verify.h"

namespace lora {

struct Checkpoint;

using TensorFigures = std::map<std::string, TensorStatistics>;

/// Statistics of every float tensor, by peft_key.
TensorFigures tensor_figures(const TensorMap& tensors, int threads);

/// One row a module, in the adapter's order, with the statistics of its factors taken from
/// `tensors`; `base` (may be null) adds the weight's mean and norm.
std::vector<ModuleFigures> module_figures(const Adapter& adapter, const TensorFigures& tensors,
                                          const Checkpoint* base, int threads);

}  // namespace lora
