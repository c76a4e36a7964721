#include "checkpoint/weight_reader.h"

#include <map>
#include <set>
#include <system_error>
#include <tuple>
#include <utility>

#include "checkpoint/aliases.h"
#include "checkpoint/listing.h"
#include "lora/base/error.h"
#include "lora/format/safetensors.h"
#include "lora/format/sharded.h"
#include "lora/format/torch_file.h"

namespace lora {
namespace {

namespace stdfs = std::filesystem;

struct Part {
  TensorMap tensors;
  std::map<std::string, std::string> aliases;
  std::vector<std::string> file_order;
};

Part read_safetensors_part(Checkpoint& checkpoint, const stdfs::path& path) {
  auto mapping = MappedFile::open(path);
  SafetensorsFile file = parse_safetensors(mapping->bytes(), mapping, path);
  checkpoint.mappings.push_back(std::move(mapping));
  return {std::move(file.tensors), {}, {}};
}

Part read_torch_part(Checkpoint& checkpoint, const stdfs::path& path) {
  TorchFile file = read_torch_file(path);
  if (!file.nested_under.empty())
    checkpoint.notes.push_back(path.filename().string() + ": state dict found under \"" +
                               file.nested_under + "\"");
  if (!file.ignored.empty())
    checkpoint.notes.push_back(path.filename().string() +
                               ": left out what is no tensor: " + list_names(file.ignored));

  using Place = std::tuple<std::uint64_t, std::uint64_t, DType, std::vector<std::int64_t>,
                           std::vector<std::int64_t>>;
  std::map<Place, std::vector<std::string>> names_at;
  Part part;
  for (TorchEntry& entry : file.entries) {
    part.file_order.push_back(entry.name);
    // Empty tensors share storages by accident, not by meaning.
    if (entry.tensor.numel() != 0)
      names_at[{entry.storage_id, entry.storage_offset, entry.tensor.dtype, entry.tensor.shape,
                entry.strides}]
          .push_back(entry.name);
    part.tensors.insert_or_assign(entry.name, std::move(entry.tensor));
  }
  for (const auto& [place, names] : names_at) {
    if (names.size() < 2) continue;
    const std::string canonical = canonical_name(names);
    for (const std::string& name : names) {
      if (name == canonical) continue;
      part.tensors.erase(name);
      part.aliases.emplace(name, canonical);
    }
  }
  return part;
}

Part read_part(Checkpoint& checkpoint, const stdfs::path& path) {
  checkpoint.files.push_back(path);
  const std::string name = path.filename().string();
  if (name.ends_with(".gguf"))
    throw Error(ErrorKind::unsupported, "cannot open base " + path.string() +
                                            ": it is a gguf file, expected a checkpoint "
                                            "in safetensors or a torch file")
        .in_file(path.string())
        .with_hint("turn it into one first: lora init-base --from " + path.string() + " -o DIR");
  if (!name.ends_with(".safetensors") && looks_like_torch_file(path))
    return read_torch_part(checkpoint, path);
  if (!name.ends_with(".safetensors") && has_weight_suffix(path))
    throw Error(ErrorKind::malformed, "cannot open base " + path.string() +
                                          ": found neither a zip archive nor a pickle, expected "
                                          "a file written by torch.save")
        .in_file(path.string());
  return read_safetensors_part(checkpoint, path);
}

void require_files(const ShardIndex& index) {
  std::vector<std::string> absent;
  std::error_code ignored;
  for (const std::string& name : index.files)
    if (!stdfs::exists(index.path.parent_path() / name, ignored)) absent.push_back(name);
  if (!absent.empty())
    throw Error(ErrorKind::not_found, "cannot open " + index.path.string() +
                                          ": shards it names are missing: " + list_names(absent))
        .in_file(index.path.string());
}

void read_shards(Checkpoint& checkpoint, const stdfs::path& index_path) {
  const ShardIndex index = read_shard_index(index_path);
  require_files(index);
  std::vector<std::string> stray;
  std::set<std::string> present;
  for (const std::string& file : index.files) {
    Part part = read_part(checkpoint, index_path.parent_path() / file);
    const auto account = [&](const std::string& name) {
      const auto expected = index.file_of.find(name);
      if (expected == index.file_of.end() || expected->second != file)
        stray.push_back(name + " (in " + file + ")");
      else
        present.insert(name);
    };
    for (const auto& [name, tensor] : part.tensors) account(name);
    for (const auto& [alias, canonical] : part.aliases) account(alias);
    checkpoint.tensors.merge(part.tensors);
    checkpoint.aliases.merge(part.aliases);
  }
  std::vector<std::string> absent;
  for (const auto& [name, file] : index.file_of)
    if (!present.contains(name)) absent.push_back(name + " (of " + file + ")");
  if (absent.empty() && stray.empty()) return;
  std::string message = "index " + index_path.string() + " disagrees with its shards:";
  if (!absent.empty()) message += " not in their shard: " + list_names(absent);
  if (!absent.empty() && !stray.empty()) message += ";";
  if (!stray.empty()) message += " not where the index says: " + list_names(stray);
  throw Error(ErrorKind::malformed, message).in_file(index_path.string());
}

}  // namespace

std::vector<std::string> read_weights(Checkpoint& checkpoint, const WeightFiles& weights) {
  if (!weights.index.empty()) {
    read_shards(checkpoint, weights.index);
    return {};
  }
  Part part = read_part(checkpoint, weights.single);
  checkpoint.tensors = std::move(part.tensors);
  checkpoint.aliases = std::move(part.aliases);
  return std::move(part.file_order);
}

}  // namespace lora
