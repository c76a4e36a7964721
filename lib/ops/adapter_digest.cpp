#include "ops/adapter_digest.h"

#include <algorithm>
#include <bit>
#include <initializer_list>
#include <utility>
#include <vector>

#include "adapter/parameter_sites.h"
#include "lora/base/parallel.h"
#include "lora/base/tensor_digest.h"

namespace lora {
namespace {

using KeyDigests = std::vector<std::pair<const std::string*, Digest>>;

void add(Sha256& hash, std::string_view text) { hash.update_u64(text.size()).update(text); }

// Layouts that no key and no shape shows.
void add_layout(Sha256& hash, const AdapterConfig& config) {
  const auto is_set = [&](const char* field) {
    const Json* value = config.other.find(field);
    return value != nullptr && !value->is_null() && value->as_bool() != false;
  };
  for (const char* field : {"target_parameters", "use_bdlora", "use_qalora"}) {
    if (!is_set(field)) continue;
    add(hash, field);
    add(hash, dump_json(*config.other.find(field), kCompactStyle));
  }
  if (is_set("target_parameters")) hash.update_u64(is_in_out_by_version(config) ? 1 : 0);
  if (is_set("use_qalora") && is_set("qalora_group_size"))
    add(hash, dump_json(*config.other.find("qalora_group_size"), kCompactStyle));
  add(hash, base_changing_init(config));
}

Digest digest_of(const Adapter& adapter, const KeyDigests& tensors) {
  Sha256 hash;
  hash.update("lora.adapter/1").update_u64(tensors.size());
  for (const auto& [key, digest] : tensors) {
    add(hash, *key);
    hash.update(digest.hex());
  }
  for (const LoraModule& module : adapter.modules) {
    add(hash, module.module_path);
    hash.update_u64(std::bit_cast<std::uint64_t>(module.scaling * module.times));
  }
  for (const TokenRows& rows : adapter.tokens)
    for (const std::int64_t index : rows.indices)
      hash.update_u64(static_cast<std::uint64_t>(index));
  add_layout(hash, adapter.config);
  return hash.finish();
}

}  // namespace

Digest adapter_digest(const Adapter& adapter, int threads) {
  KeyDigests digests;
  std::vector<const Tensor*> tensors;
  for (const auto& [key, tensor] : adapter.tensors) {
    digests.emplace_back(&key, Digest());
    tensors.push_back(&tensor);
  }
  parallel_for(digests.size(), threads, [&](std::size_t i) {
    digests[i].second = tensor_digest(*digests[i].first, *tensors[i]);
  });
  return digest_of(adapter, digests);
}

Digest adapter_digest(const Adapter& adapter, const std::map<std::string, TensorRecord>& records) {
  KeyDigests digests;
  for (const auto& [key, record] : records) digests.emplace_back(&key, record.digest);
  return digest_of(adapter, digests);
}

}  // namespace lora
