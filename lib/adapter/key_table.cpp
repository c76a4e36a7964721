#include "adapter/key_table.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "lora/base/equal_bytes.h"

namespace lora {
namespace {

// bias="all" also writes <module>.modules_to_save.bias, which the clean name repeats.
bool is_redundant_copy(const KeySource& source) {
  return source.parsed.role == KeyRole::saved &&
         source.file_key.find(".modules_to_save.") != std::string::npos;
}

// Leaves in `keys` what belongs to the adapter that is taken.
void set_others_apart(std::vector<KeySource>& keys, const TensorMap& tensors,
                      const std::optional<std::string>& wanted, Adapter& adapter) {
  std::map<std::string, std::string> first_keys;
  for (const KeySource& key : keys)
    if (std::string owner = adapter_of(key.parsed); !owner.empty())
      first_keys.try_emplace(std::move(owner), key.file_key);
  if (first_keys.empty()) return;
  const auto named = first_keys.find(wanted.value_or(adapter.name));
  adapter.name = named == first_keys.end() ? first_keys.begin()->first : named->first;
  if (first_keys.size() == 1) return;
  std::erase_if(keys, [&](const KeySource& key) {
    const std::string owner = adapter_of(key.parsed);
    if (owner.empty() || owner == adapter.name) return false;
    adapter.others[owner].emplace(key.file_key, tensors.at(key.file_key));
    return true;
  });
  if (wanted == adapter.name) return;
  for (const auto& [name, key] : first_keys)
    if (name != adapter.name)
      adapter.problems.push_back({KeyProblem::Kind::other_adapter, key,
                                  "belongs to the adapter \"" + name + "\" and the file holds \"" +
                                      adapter.name + "\" too, expected one adapter in a file"});
}

}  // namespace

KeyTable take_names(TensorMap tensors, const std::optional<std::string>& wanted, Adapter& adapter) {
  std::vector<KeySource> keys;
  for (const auto& [name, tensor] : tensors) keys.push_back({name, parse_key(name)});
  adapter.file_keys = keys.size();
  set_others_apart(keys, tensors, wanted, adapter);
  KeyTable sources;
  std::vector<std::pair<std::string, KeySource>> unclean;
  for (KeySource& source : keys) {
    std::string clean = to_peft_key(source.parsed);
    if (clean != source.file_key) {
      adapter.unclean_keys.push_back(source.file_key);
      unclean.emplace_back(std::move(clean), std::move(source));
    } else {
      adapter.tensors.emplace(clean, tensors.at(source.file_key));
      sources.emplace(std::move(clean), std::move(source));
    }
  }
  for (auto& [clean, source] : unclean) {
    const Tensor& tensor = tensors.at(source.file_key);
    const auto [kept, is_new] = adapter.tensors.emplace(clean, tensor);
    if (is_new) {
      sources.emplace(clean, std::move(source));
      continue;
    }
    const bool is_same = has_equal_bytes(kept->second, tensor);
    if (!is_same || !is_redundant_copy(source))
      adapter.problems.push_back(
          {is_same ? KeyProblem::Kind::copy : KeyProblem::Kind::duplicate, source.file_key,
           "is a second name of " + clean + ", which the file holds as " +
               sources.at(clean).file_key + " with " + (is_same ? "equal" : "different") +
               " contents, expected one tensor for each name"});
  }
  return sources;
}

}  // namespace lora
