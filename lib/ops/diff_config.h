// Differences of two adapter configurations, with what each field changes in the computation.
#pragma once

#include <vector>

#include "lora/adapter/config.h"
#include "lora/ops/diff.h"

namespace lora {

/// Fields whose values differ, in name order. Lists that PEFT writes in no particular order are
/// compared as sets.
std::vector<FieldDifference> diff_fields(const AdapterConfig& a, const AdapterConfig& b);

}  // namespace lora
