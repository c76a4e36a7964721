// Sharded checkpoints: `NAME.index.json` with a weight_map, read and written as transformers does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lora/base/atomic_write.h"
#include "lora/format/safetensors.h"

namespace lora {

struct ShardIndex {
  std::filesystem::path path;
  std::map<std::string, std::string> file_of;  ///< base_name -> file name in the same directory
  std::vector<std::string> files;              ///< distinct file names, sorted
};

/// Reads `weight_map`; `metadata` is not looked at, because files in circulation carry total_size
/// as an integer, a float or a string. Throws Error(malformed) for a document without a weight_map,
/// an empty one, and file names that leave the directory ('/', '\\', "..", absolute).
ShardIndex read_shard_index(const std::filesystem::path& path);

/// Writes `model.safetensors`, or `model-00001-of-0000N.safetensors` +
/// `model.safetensors.index.json` when the data exceeds `max_shard_size` bytes (0: never shard).
/// Tensors go to shards in the given order, a new shard starting where the next tensor would not
/// fit, as transformers does; one tensor larger than the limit gets a shard of its own, numbered
/// before the shard still being filled. The index's total_parameters is what transformers counts:
/// elements of the model's parameters, tied ones once, buffers not at all. Pass it when `tensors`
/// holds anything else; by default it is the sum over `tensors`. Returns the file names written,
/// the index last. Throws as write_safetensors.
std::vector<std::string> write_sharded(
    AtomicDirectory& directory, const std::vector<TensorSource>& tensors,
    std::uint64_t max_shard_size, std::optional<std::uint64_t> total_parameters = std::nullopt);

}  // namespace lora
