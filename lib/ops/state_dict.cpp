#include "ops/state_dict.h"

#include <algorithm>
#include <set>

#include "lora/adapter/keys.h"
#include "lora/base/equal_bytes.h"
#include "lora/base/error.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/format/safetensors.h"
#include "lora/format/torch_file.h"

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

AdapterPart adapter_part(const TensorMap& state_dict, const AdapterConfig* config,
                         const std::filesystem::path& source) {
  AdapterPart part;
  std::set<std::string> with_lora;
  std::set<std::string> wrappers;
  std::set<std::string> modules;
  std::vector<std::pair<const TensorMap::value_type*, ParsedKey>> keys;
  for (const auto& entry : state_dict) {
    ParsedKey key = parse_key(entry.first);
    if (key.is_lora()) with_lora.insert(key.module_path);
    wrappers.insert(key.wrappers.begin(), key.wrappers.end());
    modules.insert(key.module_path);
    keys.emplace_back(&entry, std::move(key));
  }
  for (const auto& [entry, key] : keys) {
    const auto& [name, tensor] = *entry;
    const bool is_copy = has_component(name, "modules_to_save");
    const bool keep = key.role != KeyRole::original &&
                      (key.is_lora() || is_copy ||
                       (config && declares(*config, key, with_lora.contains(key.module_path))));
    if (!keep) {
      part.left_out.push_back(name);
      part.left_out_bytes += tensor.bytes.size();
      continue;
    }
    const auto [place, is_new] = part.tensors.emplace(to_peft_key(key), tensor);
    if (!is_new && !has_equal_bytes(place->second, tensor))
      throw Error(ErrorKind::malformed, "cannot save from " + source.string() +
                                            ": two names mean " + place->first +
                                            " and their values differ, one of them is " + name)
          .in_file(source.string())
          .in_tensor(name)
          .with_hint("the state dict holds more than one adapter; save them one at a time");
  }
  part.unwrapped.assign(wrappers.begin(), wrappers.end());
  part.module_paths.assign(modules.begin(), modules.end());
  return part;
}

}  // namespace lora
