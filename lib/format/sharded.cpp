#include "lora/format/sharded.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <set>
#include <utility>

#include "format/in_quotes.h"
#include "lora/base/checked.h"
#include "lora/base/error.h"
#include "lora/format/json.h"
#include "lora/format/json_stream.h"

namespace lora {
namespace {

using Shard = std::vector<TensorSource>;

struct Sizes {
  std::uint64_t elements = 0;
  std::uint64_t bytes = 0;
};

Sizes sizes_of(const TensorSource& source) {
  const auto count = checked_numel(source.shape);
  const auto bits = count ? checked_mul(*count, bits_of(source.dtype)) : std::nullopt;
  if (!bits)
    throw Error(ErrorKind::unsupported, "cannot write tensor " + in_quotes(source.name) +
                                            ": its size does not fit in 64 bits")
        .in_tensor(source.name);
  return {*count, *bits / 8};
}

// The reference's rule. Two of its traits are visible in the file numbers: a tensor above the limit
// closes its own shard at once, so it comes before the shard still being filled; and all tensors
// without data count as one shared storage, so they follow the first of them.
std::vector<Shard> split(const std::vector<TensorSource>& tensors, std::uint64_t limit) {
  std::vector<Shard> shards;
  Shard current;
  Shard empties;
  std::uint64_t filled = 0;
  for (const TensorSource& source : tensors) {
    const std::uint64_t bytes = sizes_of(source).bytes;
    if (bytes == 0 && !empties.empty()) {
      empties.push_back(source);
    } else if (bytes > limit) {
      shards.push_back({source});
    } else {
      if (bytes > limit - filled) {
        shards.push_back(std::exchange(current, {}));
        filled = 0;
      }
      if (bytes == 0) empties.push_back(source);
      current.push_back(source);
      filled += bytes;
    }
  }
  if (!current.empty()) shards.push_back(std::move(current));
  if (empties.size() > 1) {
    const auto holds_first = [&](const Shard& shard) {
      return std::any_of(shard.begin(), shard.end(), [&](const TensorSource& source) {
        return source.name == empties.front().name;
      });
    };
    Shard& home = *std::find_if(shards.begin(), shards.end(), holds_first);
    home.insert(home.end(), empties.begin() + 1, empties.end());
  }
  return shards;
}

void write_shard(AtomicDirectory& directory, const std::string& file_name, Shard shard) {
  const auto file = directory.create(file_name);
  write_safetensors(*file, std::move(shard), &pytorch_metadata());
  file->sync_and_close();
}

std::string shard_name(std::size_t index, std::size_t count) {
  char name[80];
  std::snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name;
}

void check_file_name(const std::string& tensor, const std::string& file_name,
                     const std::filesystem::path& index) {
  const bool leaves = file_name.empty() || file_name == "." || file_name == ".." ||
                      file_name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos;
  if (leaves)
    throw Error(ErrorKind::malformed, "cannot use index " + index.string() + ": tensor " +
                                          in_quotes(tensor) + " is said to be in " +
                                          in_quotes(file_name) +
                                          ", expected the name of a file in the same directory")
        .in_file(index.string())
        .in_tensor(tensor);
}

}  // namespace

ShardIndex read_shard_index(const std::filesystem::path& path) {
  const auto malformed = [&](const std::string& reason) {
    return Error(ErrorKind::malformed, "cannot use index " + path.string() + ": " + reason)
        .in_file(path.string());
  };
  ShardIndex index;
  index.path = path;
  std::set<std::string> files;
  const auto take = [&](std::size_t, const std::string& tensor, const Json& value) {
    const std::string* file_name = value.as_string();
    if (file_name == nullptr)
      throw malformed("tensor " + in_quotes(tensor) + ": found " + std::string(value.type_name()) +
                      " in weight_map, expected a file name")
          .in_tensor(tensor);
    check_file_name(tensor, *file_name, path);
    files.insert(*file_name);
    return index.file_of.emplace(tensor, *file_name).second;
  };
  const Json document = stream_json_file(path, {{"weight_map"}}, take);
  const Json* weight_map = document.find("weight_map");
  if (weight_map == nullptr || !weight_map->is_object())
    throw malformed("found " +
                    (weight_map != nullptr ? std::string(weight_map->type_name()) : "nothing") +
                    " as weight_map, expected an object");
  if (index.file_of.empty()) throw malformed("its weight_map names no tensor");
  index.files.assign(files.begin(), files.end());
  return index;
}

std::vector<std::string> write_sharded(AtomicDirectory& directory,
                                       const std::vector<TensorSource>& tensors,
                                       std::uint64_t max_shard_size,
                                       std::optional<std::uint64_t> total_parameters) {
  Sizes total;
  for (const TensorSource& source : tensors) {
    const Sizes sizes = sizes_of(source);
    const auto bytes = checked_add(total.bytes, sizes.bytes);
    const auto elements = checked_add(total.elements, sizes.elements);
    if (!bytes || !elements)
      throw Error(ErrorKind::unsupported, "cannot write a checkpoint of more than 2^64 bytes");
    total = {*elements, *bytes};
  }
  const std::uint64_t limit = max_shard_size == 0 ? total.bytes : max_shard_size;
  std::vector<Shard> shards = split(tensors, limit);
  if (shards.size() <= 1) {
    write_shard(directory, "model.safetensors", tensors);
    return {"model.safetensors"};
  }
  std::vector<std::string> files;
  JsonObject weight_map;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    files.push_back(shard_name(i, shards.size()));
    for (const TensorSource& source : shards[i]) weight_map[source.name] = files.back();
    write_shard(directory, files.back(), std::move(shards[i]));
  }
  const Json index(JsonObject{
      {"metadata", JsonObject{{"total_parameters", total_parameters.value_or(total.elements)},
                              {"total_size", total.bytes}}},
      {"weight_map", std::move(weight_map)}});
  files.emplace_back("model.safetensors.index.json");
  directory.write(files.back(), dump_json(index, kPythonConfigStyle) + "\n");
  return files;
}

}  // namespace lora
