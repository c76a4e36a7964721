// Weight files to named tensors, before any meaning is given to them.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/weight_files.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora {

/// Fills tensors, aliases (shared storages), files, mappings and notes from the weight files.
/// Returns the names in file order where the container keeps one (a single torch file), else none.
/// Throws Error(malformed) listing every disagreement between an index and its shards.
std::vector<std::string> read_weights(Checkpoint& checkpoint, const WeightFiles& weights);

}  // namespace lora
