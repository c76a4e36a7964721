// The key figures of an adapter's modules, computed on all threads.
#pragma once

#include <vector>

#include "lora/ops/verify.h"

namespace lora {

struct Checkpoint;

/// One row a module, in the adapter's order; `base` (may be null) adds the weight's mean and norm.
std::vector<ModuleFigures> module_figures(const Adapter& adapter, const Checkpoint* base,
                                          int threads);

}  // namespace lora
