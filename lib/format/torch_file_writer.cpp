#include <limits>
#include <map>
#include <set>
#include <string>
#include <tuple>

#include "format/in_quotes.h"
#include "format/pickle_writer.h"
#include "format/utf8.h"
#include "format/zip_writer.h"
#include "lora/base/checked.h"
#include "lora/base/error.h"
#include "lora/format/torch_file.h"

namespace lora {
namespace {

constexpr std::uint64_t kAlignment = 64;

Error cannot_write(const TensorSource& source, ErrorKind kind, const std::string& reason) {
  return Error(kind,
               "cannot write tensor " + in_quotes(source.name) + " to a torch file: " + reason)
      .in_tensor(source.name);
}

std::uint64_t byte_size(const TensorSource& source) {
  const auto count = checked_numel(source.shape);
  const auto bits = count ? checked_mul(*count, bits_of(source.dtype)) : std::nullopt;
  if (!bits || *bits % 8 != 0)
    throw cannot_write(source, ErrorKind::unsupported,
                       "found " + std::string(to_string(source.dtype)) + " of shape " +
                           shape_to_string(source.shape) + ", expected a whole number of bytes");
  return *bits / 8;
}

void check_names(const std::vector<TensorSource>& tensors) {
  std::set<std::string_view> names;
  for (const TensorSource& source : tensors) {
    if (!is_utf8(source.name))
      throw cannot_write(source, ErrorKind::unsupported, "its name is not valid UTF-8");
    if (source.name.size() > std::numeric_limits<std::uint32_t>::max())
      throw cannot_write(source, ErrorKind::unsupported, "its name is too long");
    if (!names.insert(source.name).second)
      throw cannot_write(source, ErrorKind::internal, "given twice, expected unique names");
  }
}

/// Index of the source that owns the storage of each source.
std::vector<std::size_t> resolve_owners(const std::vector<TensorSource>& tensors,
                                        const std::map<std::string, std::string>& aliases) {
  std::map<std::string_view, std::size_t> index;
  for (std::size_t i = 0; i < tensors.size(); ++i) index.emplace(tensors[i].name, i);
  std::vector<std::size_t> owners;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto alias = aliases.find(tensors[i].name);
    const auto owner = alias == aliases.end() ? index.end() : index.find(alias->second);
    if (alias == aliases.end()) {
      owners.push_back(i);
      continue;
    }
    if (owner == index.end() || aliases.contains(alias->second) ||
        tensors[owner->second].dtype != tensors[i].dtype ||
        byte_size(tensors[owner->second]) != byte_size(tensors[i]))
      throw cannot_write(tensors[i], ErrorKind::internal,
                         "it cannot share the storage of " + in_quotes(alias->second));
    owners.push_back(owner->second);
  }
  return owners;
}

void write_storage(ZipWriter& zip, const std::string& name, const TensorSource& source) {
  if (source.stream) {
    zip.begin(name, byte_size(source));
    source.stream([&](std::span<const std::byte> bytes) { zip.write(bytes); });
    zip.end();
    return;
  }
  const Tensor tensor = source.load();
  if (tensor.dtype != source.dtype || tensor.shape != source.shape ||
      tensor.bytes.size() != byte_size(source))
    throw cannot_write(source, ErrorKind::internal,
                       "its bytes do not have the announced dtype and shape");
  zip.begin(name, tensor.bytes.size());
  zip.write(tensor.bytes);
  zip.end();
}

}  // namespace

void write_torch_file(WritableFile& file, const std::vector<TensorSource>& tensors,
                      const std::map<std::string, std::string>& aliases) {
  check_names(tensors);
  const std::vector<std::size_t> owners = resolve_owners(tensors, aliases);
  std::map<std::size_t, std::string> keys;
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (owners[i] == i) keys.emplace(i, std::to_string(keys.size()));

  std::vector<pickle::PickledTensor> pickled;
  pickled.reserve(tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorSource& source = tensors[i];
    byte_size(source);
    pickled.push_back({source.name, source.dtype, source.shape, keys.at(owners[i]),
                       checked_numel(source.shape).value_or(0)});
  }

  ZipWriter zip(file, kAlignment);
  zip.add("archive/data.pkl", pickle::write_state_dict(pickled));
  zip.add("archive/byteorder", "little");
  for (const auto& [owner, key] : keys) write_storage(zip, "archive/data/" + key, tensors[owner]);
  zip.add("archive/version", "3\n");
  zip.finish();
}

void write_torch_file(WritableFile& file,
                      const std::vector<std::pair<std::string, Tensor>>& state_dict) {
  std::vector<TensorSource> sources;
  std::map<std::string, std::string> aliases;
  std::map<std::tuple<const std::byte*, std::size_t, DType>, std::string_view> owners;
  for (const auto& [name, tensor] : state_dict) {
    sources.push_back({name, tensor.dtype, tensor.shape, [&tensor = tensor] { return tensor; }});
    if (tensor.bytes.empty()) continue;
    const auto [owner, is_new] =
        owners.emplace(std::tuple(tensor.bytes.data(), tensor.bytes.size(), tensor.dtype), name);
    if (!is_new) aliases.emplace(name, owner->second);
  }
  write_torch_file(file, sources, aliases);
}

}  // namespace lora
