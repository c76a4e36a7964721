// Which files of a folder hold the weights of a base.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace lora {

/// What holds the weights: exactly one of the two is set.
struct WeightFiles {
  std::filesystem::path single;
  std::filesystem::path index;
};

/// The order of transformers (model.safetensors, its index, pytorch_model.bin, its index), then the
/// one other .safetensors, .pth, .pt or .bin file that is not an adapter's or an optimizer's.
/// Throws Error(not_found) when there is none, Error(malformed) when several could be meant or
/// shards lie there without their index.
WeightFiles find_weight_files(const std::filesystem::path& directory);

/// True for a file name that ends as weight files do.
bool has_weight_suffix(const std::filesystem::path& path);

/// Folder of the snapshot that the cache holds for a Hugging Face id ("org/name" or "name"): the
/// one `refs/main` names, else the only one. Nullopt when `id` cannot be an id or no cache has it.
/// Throws Error(malformed) when a cache has it without a usable snapshot.
std::optional<std::filesystem::path> find_cached_model(
    const std::string& id, const std::vector<std::filesystem::path>& caches);

}  // namespace lora
