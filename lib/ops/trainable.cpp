#include "lora/ops/trainable.h"

#include <algorithm>
#include <map>
#include <set>

#include "lora/adapter/keys.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora {
namespace {

bool is_buffer(const ParsedKey& key) {
  return key.parameter == "running_mean" || key.parameter == "running_var" ||
         key.parameter == "num_batches_tracked";
}

// PEFT wraps every module whose path ends with an entry, dot or not, with all that is inside it.
bool is_saved_module(const std::string& module_path, const AdapterConfig& config) {
  for (std::size_t end = module_path.size(); end != std::string::npos && end != 0;
       end = module_path.rfind('.', end - 1)) {
    const std::string_view path = std::string_view(module_path).substr(0, end);
    if (std::any_of(config.modules_to_save.begin(), config.modules_to_save.end(),
                    [&](const std::string& entry) { return path.ends_with(entry); }))
      return true;
  }
  return false;
}

bool is_trainable(const ParsedKey& key, const AdapterConfig& config) {
  const std::string* init = config.init_lora_weights.as_string();
  if (key.role == KeyRole::lora_b && init != nullptr && *init == "mica") return false;
  if (key.role == KeyRole::original) return false;
  if (key.is_lora()) return true;
  if (key.parameter == "bias" && config.bias != BiasMode::none) return true;
  return key.role == KeyRole::saved && !is_buffer(key) && is_saved_module(key.module_path, config);
}

DType training_dtype(const ParsedKey& key, const Tensor& tensor, const Checkpoint& base) {
  const bool is_half = tensor.dtype == DType::f16 || tensor.dtype == DType::bf16;
  if (key.is_lora()) return is_half ? DType::f32 : tensor.dtype;
  const Tensor* original = base.find(to_base_name(key));
  return original != nullptr ? original->dtype : tensor.dtype;
}

}  // namespace

std::vector<TrainableParameter> trainable_parameters(const Adapter& adapter,
                                                     const Checkpoint& base) {
  const AdapterConfig& config = adapter.config;
  std::map<std::string, TrainableParameter> found;
  std::set<std::string> adapted;
  for (const LoraModule& module : adapter.modules) adapted.insert(module.module_path);
  for (const auto& [peft_key, tensor] : adapter.tensors) {
    const ParsedKey key = parse_key(peft_key);
    if (!is_trainable(key, config)) continue;
    found[peft_key] = {peft_key, tensor.shape, training_dtype(key, tensor, base), true};
  }
  if (config.bias != BiasMode::none) {
    for (const auto& [base_name, tensor] : base.tensors) {
      ParsedKey key = parse_key(base_name);
      if (key.parameter != "bias") continue;
      const bool has_lora = adapted.contains(key.module_path);
      if (config.bias == BiasMode::lora_only && !has_lora) continue;
      if (has_lora) key.role = KeyRole::base_layer;
      const std::string name = to_peft_key(key);
      found.try_emplace(name, TrainableParameter{name, tensor.shape, tensor.dtype, false});
    }
  }
  std::vector<TrainableParameter> parameters;
  for (auto& [name, parameter] : found) parameters.push_back(std::move(parameter));
  return parameters;
}

}  // namespace lora
