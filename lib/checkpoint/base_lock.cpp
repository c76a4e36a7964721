#include "lora/checkpoint/base_lock.h"

#include <algorithm>
#include <mutex>
#include <optional>

#include "format/in_quotes.h"
#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "lora/base/tensor_digest.h"
#include "lora/format/json.h"
#include "lora/format/json_stream.h"

namespace lora {
namespace {

constexpr const char* kSchema = "lora.base_lock/1";

Error malformed(const std::filesystem::path& path, const std::string& what) {
  return Error(ErrorKind::malformed, "cannot read base lock " + path.string() + ": " + what)
      .in_file(path.string());
}

Error wrong_alias(const std::filesystem::path& path, const std::string& alias) {
  return malformed(path, "alias " + in_quotes(alias) + " does not stand for one of its tensors");
}

void require_members(const Json& value, std::initializer_list<std::string_view> keys,
                     const std::filesystem::path& path, const std::string& where) {
  const JsonObject* object = value.as_object();
  if (object == nullptr)
    throw malformed(path, where + " is " + std::string(value.type_name()) + ", expected an object");
  for (const std::string_view key : keys)
    if (object->find(key) == nullptr)
      throw malformed(path, where + " has no field \"" + std::string(key) + "\"");
  for (const auto& [key, member] : *object)
    if (std::find(keys.begin(), keys.end(), key) == keys.end())
      throw malformed(path, where + " has an unknown field " + in_quotes(key));
}

Digest read_digest(const Json& value, const std::filesystem::path& path, const std::string& where) {
  const std::string* text = value.as_string();
  const auto digest = text == nullptr ? std::nullopt : Digest::from_hex(*text);
  if (!digest) throw malformed(path, where + " is not 64 hexadecimal digits");
  return *digest;
}

LockedTensor read_tensor(const Json& value, const std::filesystem::path& path,
                         const std::string& where) {
  require_members(value, {"dtype", "shape", "sha256"}, path, where);
  LockedTensor tensor;
  const std::string* dtype = value.find("dtype")->as_string();
  if (dtype == nullptr || !dtype_from_string(*dtype))
    throw malformed(path, where + " has an unknown dtype");
  tensor.dtype = *dtype;
  const JsonArray* shape = value.find("shape")->as_array();
  if (shape == nullptr) throw malformed(path, where + " has no list as shape");
  for (const Json& extent : *shape) {
    const auto size = extent.as_int();
    if (!size || *size < 0) throw malformed(path, where + " has a wrong shape");
    tensor.shape.push_back(*size);
  }
  tensor.digest = read_digest(*value.find("sha256"), path, where);
  return tensor;
}

}  // namespace

Digest root_of(const std::map<std::string, LockedTensor>& tensors) {
  Sha256 hash;
  hash.update(std::string_view("lora.base/1\0", 12));
  hash.update_u64(tensors.size());
  for (const auto& [name, tensor] : tensors)
    hash.update(std::as_bytes(std::span(tensor.digest.bytes)));
  return hash.finish();
}

BaseLock compute_base_lock(const Checkpoint& checkpoint, int threads, const Sinks& sinks,
                           const std::map<std::string, Digest>& known) {
  std::vector<const TensorMap::value_type*> order;
  std::uint64_t total = 0;
  for (const auto& entry : checkpoint.tensors) {
    if (known.contains(entry.first)) continue;
    order.push_back(&entry);
    total += entry.second.bytes.size();
  }
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return a->second.bytes.size() > b->second.bytes.size();
  });

  std::vector<Digest> digests(order.size());
  std::mutex mutex;
  std::uint64_t done = 0;
  parallel_for(order.size(), threads, [&](std::size_t i) {
    const auto& [name, tensor] = *order[i];
    digests[i] = tensor_digest(name, tensor, [&](std::span<const std::byte> consumed) {
      sinks.throw_if_cancelled();
      drop_pages(checkpoint.mappings, consumed);
      const std::lock_guard lock(mutex);
      done += consumed.size();
      sinks.report(done, total);
    });
  });

  BaseLock lock;
  const auto add = [&](const std::string& name, const Tensor& tensor, const Digest& digest) {
    lock.tensors[name] = {std::string(to_string(tensor.dtype)), tensor.shape, digest};
  };
  for (std::size_t i = 0; i < order.size(); ++i) add(order[i]->first, order[i]->second, digests[i]);
  for (const auto& [name, digest] : known)
    if (const auto found = checkpoint.tensors.find(name); found != checkpoint.tensors.end())
      add(name, found->second, digest);
  lock.aliases = checkpoint.aliases;
  lock.root = root_of(lock.tensors);
  return lock;
}

std::string dump_base_lock(const BaseLock& lock) {
  JsonObject tensors;
  for (const auto& [name, tensor] : lock.tensors)
    tensors[name] = Json(JsonObject{{"dtype", tensor.dtype},
                                    {"shape", JsonArray(tensor.shape.begin(), tensor.shape.end())},
                                    {"sha256", tensor.digest.hex()}});
  JsonObject aliases;
  for (const auto& [alias, canonical] : lock.aliases) aliases[alias] = canonical;
  return dump_json(Json(JsonObject{{"schema", kSchema},
                                   {"root", lock.root.hex()},
                                   {"tensors", std::move(tensors)},
                                   {"aliases", std::move(aliases)}})) +
         "\n";
}

BaseLock read_base_lock(const std::filesystem::path& path) {
  BaseLock lock;
  std::map<std::string, LockedTensor>& tensors = lock.tensors;
  std::map<std::string, std::string>& aliases = lock.aliases;
  // A lock of another schema may hold entries of another form: that is the better complaint.
  std::optional<Error> first;
  const auto take = [&](std::size_t place, const std::string& name, const Json& value) {
    try {
      if (place == 0)
        return tensors.emplace(name, read_tensor(value, path, "tensor " + in_quotes(name))).second;
      const std::string* canonical = value.as_string();
      if (canonical == nullptr) throw wrong_alias(path, name);
      return aliases.emplace(name, *canonical).second;
    } catch (const Error& error) {
      if (!first) first = error;
      return true;
    }
  };
  const Json document = stream_json_file(path, {{"tensors"}, {"aliases"}}, take);
  require_members(document, {"schema", "root", "tensors", "aliases"}, path, "it");
  if (*document.find("schema") != Json(kSchema))
    throw malformed(path, std::string("its schema is not ") + kSchema);
  lock.root = read_digest(*document.find("root"), path, "its root");
  if (!document.find("tensors")->is_object() || !document.find("aliases")->is_object())
    throw malformed(path, "its tensors and aliases are not both objects");
  if (first) throw *first;
  for (const auto& [alias, canonical] : aliases)
    if (!tensors.contains(canonical) || tensors.contains(alias)) throw wrong_alias(path, alias);
  if (root_of(tensors) != lock.root) throw malformed(path, "its root is not that of its tensors");
  return lock;
}

LockDifference compare(const BaseLock& expected, const BaseLock& actual) {
  LockDifference difference;
  for (const auto& [name, tensor] : expected.tensors) {
    const auto found = actual.tensors.find(name);
    if (found == actual.tensors.end())
      difference.missing.push_back(name);
    else if (found->second.digest != tensor.digest)
      difference.changed.push_back(name);
  }
  for (const auto& [name, tensor] : actual.tensors)
    if (!expected.tensors.contains(name)) difference.added.push_back(name);
  return difference;
}

}  // namespace lora
