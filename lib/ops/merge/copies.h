// Weights of the base that an adapter holds whole beside adapting them, against a merge.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "lora/base/sinks.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/ops/adapter_set.h"

namespace lora::merging {

/// Those of `names`, tensors of `base`, that the updates of the adapters do not take to what
/// `merged` holds, within one step of its dtype: the copy is of another base, or the merge of other
/// adapters.
std::set<std::string> contradicted_copies(const std::set<std::string>& names,
                                          const std::vector<WeightedAdapter>& given,
                                          const Checkpoint& base, const Checkpoint& merged,
                                          int threads, const Sinks& sinks);

}  // namespace lora::merging
