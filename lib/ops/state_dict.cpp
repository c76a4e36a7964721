#include "ops/state_dict.h"

#include <algorithm>
#include <map>
#include <set>

#include "lora/adapter/keys.h"
#include "lora/base/equal_bytes.h"
#include "lora/base/error.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/format/safetensors.h"
#include "lora/format/torch_file.h"
#include "ops/save_source.h"

namespace lora {
namespace {

bool has_component(const std::string& name, std::string_view component) {
  return ("." + name + ".").find("." + std::string(component) + ".") != std::string::npos;
}

bool declares(const AdapterConfig& config, const ParsedKey& key, bool module_has_lora) {
  const bool is_bias = key.parameter == "bias";
  if (is_bias && config.bias == BiasMode::all) return true;
  if (is_bias && config.bias == BiasMode::lora_only && module_has_lora) return true;
  return std::any_of(
      config.modules_to_save.begin(), config.modules_to_save.end(), [&](const std::string& entry) {
        return key.module_path.ends_with(entry) || has_component(key.module_path, entry);
      });
}

// The adapter that a tensor belongs to; nullopt for the base's own tensors and their twins.
std::optional<std::string> owner_of(const ParsedKey& key, const std::string& name) {
  if (key.role == KeyRole::original) return std::nullopt;
  if (!key.is_lora() && !has_component(name, "modules_to_save")) return std::nullopt;
  return key.adapter_name.empty() ? kDefaultAdapter : key.adapter_name;
}

std::string choose(const std::vector<std::string>& names, const std::optional<std::string>& name,
                   const std::filesystem::path& source) {
  if (!name && names.size() <= 1) return names.empty() ? std::string() : names.front();
  if (name && std::find(names.begin(), names.end(), *name) != names.end()) return *name;
  throw no_single_adapter(source, names, name);
}

}  // namespace

TensorMap read_state_dict(const std::filesystem::path& source) {
  if (std::filesystem::is_directory(source)) {
    const Checkpoint checkpoint = open_checkpoint(source.string());
    TensorMap tensors = checkpoint.tensors;
    for (const auto& [alias, name] : checkpoint.aliases) tensors.emplace(alias, tensors.at(name));
    return tensors;
  }
  if (!looks_like_torch_file(source)) return read_safetensors(source).tensors;
  TensorMap tensors;
  for (TorchEntry& entry : read_torch_file(source).entries)
    tensors.emplace(std::move(entry.name), std::move(entry.tensor));
  return tensors;
}

std::vector<std::string> adapter_names(const TensorMap& state_dict) {
  std::set<std::string> names;
  for (const auto& [name, tensor] : state_dict)
    if (const auto owner = owner_of(parse_key(name), name)) names.insert(*owner);
  return {names.begin(), names.end()};
}

AdapterPart adapter_part(const TensorMap& state_dict, const AdapterConfig* config,
                         const std::filesystem::path& source,
                         const std::optional<std::string>& name) {
  const std::string wanted = choose(adapter_names(state_dict), name, source);
  AdapterPart part;
  std::set<std::string> with_lora;
  std::set<std::string> wrappers;
  std::set<std::string> modules;
  std::vector<std::pair<const TensorMap::value_type*, ParsedKey>> keys;
  for (const auto& entry : state_dict) {
    ParsedKey key = parse_key(entry.first);
    const auto owner = owner_of(key, entry.first);
    if (key.is_lora() && owner == wanted) with_lora.insert(key.module_path);
    wrappers.insert(key.wrappers.begin(), key.wrappers.end());
    modules.insert(key.module_path);
    keys.emplace_back(&entry, std::move(key));
  }
  std::map<std::string, std::string> names;  // in the source, by clean key
  for (const auto& [entry, key] : keys) {
    const auto& [key_name, tensor] = *entry;
    const auto owner = owner_of(key, key_name);
    const bool keep = owner ? *owner == wanted
                            : key.role != KeyRole::original && config != nullptr &&
                                  declares(*config, key, with_lora.contains(key.module_path));
    if (!keep) {
      part.left_out.push_back(key_name);
      part.left_out_bytes += tensor.bytes.size();
      continue;
    }
    const auto [place, is_new] = part.tensors.emplace(to_peft_key(key), tensor);
    const std::string& first_name = names.try_emplace(place->first, key_name).first->second;
    if (is_new) continue;
    if (!has_equal_bytes(place->second, tensor))
      throw Error(ErrorKind::malformed, "cannot save from " + source.string() + ": " + first_name +
                                            " and " + key_name + " both mean " + place->first +
                                            " and their values differ")
          .in_file(source.string())
          .in_tensor(key_name)
          .with_hint("remove the one that is stale");
    // PEFT itself writes modules_to_save.bias beside the bias it repeats.
    part.copies += has_component(key_name, "modules_to_save") ? 0 : 1;
  }
  part.unwrapped.assign(wrappers.begin(), wrappers.end());
  part.module_paths.assign(modules.begin(), modules.end());
  return part;
}

}  // namespace lora
