#include "engine/adapter_binding.h"

#include <ATen/ops/zeros.h>

#include "engine/adapter_checks.h"
#include "engine/bridge.h"
#include "lora/adapter/keys.h"
#include "lora/base/error.h"
#include "lora/base/random.h"

namespace lora::engine {
namespace {

// Where a tensor of an adapter goes: the member of the branch or parameter that holds it.
struct Destination {
  at::Tensor* value = nullptr;
  at::Tensor* gradient = nullptr;
  DType saved_dtype = DType::f32;
};

LoraBranch& add_branch(const Adapter& adapter, std::size_t adapter_index, const LoraModule& module,
                       Linear& linear) {
  LoraBranch& branch = linear.branches().emplace_back();
  branch.scaling = module.scaling;
  branch.dropout = adapter.config.dropout;
  branch.stream = stream_of(module.module_path + ".dropout." + std::to_string(adapter_index));
  return branch;
}

Destination destination_of(const std::string& peft_key, const Sites& sites) {
  const ParsedKey key = parse_key(peft_key);
  if (!key.is_lora()) {
    Parameter* parameter = find_parameter(sites, to_base_name(key));
    if (parameter == nullptr) return {};
    return {&parameter->replacement, &parameter->gradient, parameter->stored_dtype};
  }
  Linear* linear = find_linear(sites, key.module_path);
  if (linear == nullptr || linear->branches().empty()) return {};
  LoraBranch& branch = linear->branches().back();
  switch (key.role) {
    case KeyRole::lora_a:
      return {&branch.a, &branch.a_gradient};
    case KeyRole::lora_b:
      return {&branch.b, &branch.b_gradient};
    case KeyRole::lora_b_bias:
      return {&branch.bias, &branch.bias_gradient};
    default:
      return {};
  }
}

FlatParameters bind_trainable(const Adapter& adapter, const Sites& sites) {
  FlatParameters flat;
  std::vector<Destination> destinations;
  std::vector<const Tensor*> sources;
  std::int64_t total = 0;
  for (const auto& [peft_key, tensor] : adapter.tensors) {
    const Destination destination = destination_of(peft_key, sites);
    if (destination.value == nullptr)
      throw Error(ErrorKind::incompatible,
                  "training an adapter: its tensor has no place in the model")
          .in_file(adapter.path.string())
          .in_tensor(peft_key);
    flat.layout.push_back({peft_key, tensor.shape, total, destination.saved_dtype});
    destinations.push_back(destination);
    sources.push_back(&tensor);
    total += tensor.numel();
  }
  flat.values = at::zeros({total}, at::kFloat);
  flat.gradients = at::zeros({total}, at::kFloat);
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const std::int64_t count = sources[i]->numel();
    const auto view = [&](const at::Tensor& buffer) {
      return buffer.narrow(0, flat.layout[i].offset, count).view(sources[i]->shape);
    };
    *destinations[i].value = view(flat.values);
    destinations[i].value->copy_(convert(*sources[i], at::kFloat));
    *destinations[i].gradient = view(flat.gradients);
  }
  return flat;
}

void bind_frozen(const Adapter& adapter, const Sites& sites) {
  for (const LoraModule& module : adapter.modules) {
    LoraBranch& branch = find_linear(sites, module.module_path)->branches().back();
    branch.a = convert(module.a, at::kFloat);
    branch.b = convert(module.b, at::kFloat);
    if (module.bias) branch.bias = convert(*module.bias, at::kFloat);
  }
  for (const auto& [name, tensor] : adapter.replacements)
    find_parameter(sites, name)->replacement = convert(tensor, at::kFloat);
}

}  // namespace

FlatParameters bind_adapters(const ModelOptions& options, const Sites& sites) {
  check_adapters(options, sites);
  FlatParameters flat;
  for (std::size_t i = 0; i < options.adapters.size(); ++i) {
    const Adapter& adapter = *options.adapters[i];
    for (const LoraModule& module : adapter.modules)
      add_branch(adapter, i, module, *find_linear(sites, module.module_path));
    if (options.trainable)
      flat = bind_trainable(adapter, sites);
    else
      bind_frozen(adapter, sites);
  }
  return flat;
}

std::vector<ParameterInfo> list_parameters(const ModelOptions& options,
                                           const std::deque<Parameter>& parameters) {
  std::vector<ParameterInfo> result;
  for (const Parameter& parameter : parameters)
    if (!parameter.is_alias)
      result.push_back({parameter.base_name, parameter.shape, dtype_of(parameter.base), false});
  for (const Adapter* adapter : options.adapters)
    for (const auto& [peft_key, tensor] : adapter->tensors)
      result.push_back({peft_key, tensor.shape, DType::f32, options.trainable});
  return result;
}

}  // namespace lora::engine
