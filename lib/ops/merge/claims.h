// What lora_merge.json claims of the checkpoint beside it, against what is there.
#pragma once

#include <string>
#include <vector>

#include "lora/base/sinks.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/ops/adapter_set.h"

namespace lora::merging {

/// What the record says that is not so of these adapters, this base and these weights, one line
/// each; empty where there is no record. Hashes `merged`, and the base unless a base.lock.json lies
/// beside it. Throws Error(interrupted).
std::vector<std::string> contradicted_claims(const std::vector<WeightedAdapter>& adapters,
                                             const Checkpoint& base, const Checkpoint& merged,
                                             int threads, const Sinks& sinks);

}  // namespace lora::merging
