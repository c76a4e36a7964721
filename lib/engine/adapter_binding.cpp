#include "engine/adapter_binding.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <memory>
#include <set>

#include "engine/adapter_checks.h"
#include "engine/base_change.h"
#include "engine/bridge.h"
#include "lora/adapter/keys.h"
#include "lora/base/equal_bytes.h"
#include "lora/base/error.h"
#include "lora/base/random.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora::engine {
namespace {

// Where a tensor of an adapter goes: the member of the branch or parameter that holds it.
struct Destination {
  at::Tensor* value = nullptr;
  at::Tensor* gradient = nullptr;
  DType saved_dtype = DType::f32;
};

// The patches of the one adapter being bound, by the path of their embedding.
using Patches = std::map<std::string, std::shared_ptr<RowPatch>>;

void add_branch(const Adapter& adapter, std::size_t adapter_index, const LoraModule& module,
                LoraSite& site) {
  LoraBranch& branch = site.branches.emplace_back();
  branch.scaling = module.scaling;
  branch.dropout = adapter.config.dropout;
  branch.stream = stream_of(module.module_path + ".dropout." + std::to_string(adapter_index));
}

// PEFT wraps every module tied to the input embedding, so that its rows change as well.
std::shared_ptr<RowPatch> add_patch(const TokenRows& tokens, const Sites& sites) {
  Parameter& table = *find_parameter(sites, tokens.module_path + ".weight");
  const auto count = static_cast<std::int64_t>(tokens.indices.size());
  auto patch = std::make_shared<RowPatch>();
  patch->indices = view_of(Tensor::from_i64({count}, tokens.indices)).clone();
  patch->slots = at::full({table.shape[0]}, -1, at::kLong);
  patch->slots.index_copy_(0, patch->indices, at::arange(count, at::kLong));
  table.patches.push_back(patch);
  for (Parameter& parameter : *sites.parameters)
    if (&parameter != &table && parameter.is_alias && !table.is_alias &&
        parameter.stored_name == table.stored_name)
      parameter.patches.push_back(patch);
  return patch;
}

// What the factors of a base-changing initialisation leave of the weights. A weight under two names
// changes under both, as in PEFT, where it is one tensor.
void change_base(const Adapter& adapter, const ModelOptions& options, const Sites& sites) {
  const auto change = base_change_of(adapter.config);
  if (!change) return;
  for (const LoraModule& module : adapter.modules) {
    const LoraSite& site = *find_site(sites, module.module_path);
    const ChangedLayer layer{module.module_path, site.kind, module.rank, module.scaling};
    const at::Tensor& weight = site.weight->base;
    const FactorPair factors = options.first_factors != nullptr
                                   ? known_factors(*options.first_factors, module.module_path)
                                   : first_factors(*change, layer, weight);
    const at::Tensor rest = without_factors(*change, layer, weight, factors);
    const std::string name = site.weight->stored_name;
    for (Parameter& parameter : *sites.parameters)
      if (parameter.stored_name == name) parameter.replacement = rest;
  }
}

Destination destination_in(LoraBranch& branch, KeyRole role) {
  switch (role) {
    case KeyRole::lora_a:
    case KeyRole::embedding_a:
      return {&branch.a, &branch.a_gradient};
    case KeyRole::lora_b:
    case KeyRole::embedding_b:
      return {&branch.b, &branch.b_gradient};
    case KeyRole::lora_b_bias:
      return {&branch.bias, &branch.bias_gradient};
    case KeyRole::magnitude:
      return {&branch.magnitude, &branch.magnitude_gradient};
    default:
      return {};
  }
}

Destination destination_of(const ParsedKey& key, const Sites& sites, const Patches& patches) {
  if (!key.is_lora()) {
    Parameter* parameter = find_parameter(sites, to_base_name(key));
    if (parameter == nullptr) return {};
    return {&parameter->replacement, &parameter->gradient, parameter->stored_dtype};
  }
  if (key.role == KeyRole::trainable_tokens) {
    const auto patch = patches.find(key.module_path);
    if (patch == patches.end()) return {};
    return {&patch->second->rows, &patch->second->gradient};
  }
  LoraSite* site = find_site(sites, key.module_path);
  if (site == nullptr || site->branches.empty()) return {};
  return destination_in(site->branches.back(), key.role);
}

// PEFT writes embeddings along that it never trains (save_embedding_layers). Only a copy of the
// base's own bytes can be left out of what training writes.
bool is_saved_embedding(const ParsedKey& key, const Tensor& tensor, const Adapter& adapter,
                        const Checkpoint& base) {
  if (key.role != KeyRole::base_layer || key.parameter != "weight") return false;
  const Tensor* original = base.find(to_base_name(key));
  if (original != nullptr && has_equal_bytes(*original, tensor)) return true;
  throw Error(ErrorKind::unsupported,
              "training an adapter that brings along an embedding with values of its own")
      .in_file(adapter.path.string())
      .in_tensor(to_peft_key(key));
}

// The earlier of the bound biases that this one is tied to in the model: with bias="all" PEFT
// trains both as one and writes it under both names.
const TrainableParameter* tied_bias(const AdapterConfig& config, const ParsedKey& key,
                                    const Tensor& tensor, const Sites& sites,
                                    const FlatParameters& flat, const TensorMap& tensors) {
  if (key.is_lora() || key.parameter != "bias" || config.bias != BiasMode::all) return nullptr;
  const Parameter* own = find_parameter(sites, to_base_name(key));
  if (own == nullptr || own->stored_name.empty()) return nullptr;
  for (const TrainableParameter& other : flat.layout) {
    const ParsedKey other_key = parse_key(other.peft_key);
    if (other_key.is_lora() || other_key.parameter != "bias") continue;
    const Parameter* parameter = find_parameter(sites, to_base_name(other_key));
    if (parameter != nullptr && parameter->stored_name == own->stored_name &&
        has_equal_bytes(tensors.at(other.peft_key), tensor))
      return &other;
  }
  return nullptr;
}

FlatParameters bind_trainable(const Adapter& adapter, const Checkpoint& base, const Sites& sites,
                              const Patches& patches, Gradients gradients) {
  FlatParameters flat;
  std::vector<Destination> destinations;
  std::vector<const Tensor*> sources;
  std::int64_t total = 0;
  for (const auto& [peft_key, tensor] : adapter.tensors) {
    const ParsedKey key = parse_key(peft_key);
    if (key.role == KeyRole::original) continue;
    if (is_saved_embedding(key, tensor, adapter, base)) continue;
    const Destination destination = destination_of(key, sites, patches);
    if (destination.value == nullptr)
      throw Error(ErrorKind::incompatible,
                  "training an adapter: its tensor has no place in the model")
          .in_file(adapter.path.string())
          .in_tensor(peft_key);
    const TrainableParameter* tied =
        tied_bias(adapter.config, key, tensor, sites, flat, adapter.tensors);
    const std::int64_t offset = tied == nullptr ? total : tied->offset;
    if (tied == nullptr) total += tensor.numel();
    flat.layout.push_back({peft_key, tensor.shape, offset, destination.saved_dtype});
    destinations.push_back(destination);
    sources.push_back(&tensor);
  }
  flat.values = at::zeros({total}, at::kFloat);
  flat.gradients = at::zeros({total}, at::kFloat);
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const std::int64_t count = sources[i]->numel();
    const auto view = [&](const at::Tensor& buffer) {
      return buffer.narrow(0, flat.layout[i].offset, count).view(sources[i]->shape);
    };
    at::Tensor value = view(flat.values);
    value.copy_(convert(*sources[i], at::kFloat));
    *destinations[i].gradient = view(flat.gradients);
    if (gradients == Gradients::autograd) {
      // A leaf over the same numbers: the optimizer moves them without the graph's knowledge.
      value = value.detach();
      value.set_requires_grad(true);
      value.mutable_grad() = *destinations[i].gradient;
    }
    *destinations[i].value = value;
  }
  return flat;
}

void bind_frozen(const Adapter& adapter, const Sites& sites, const Patches& patches) {
  for (const LoraModule& module : adapter.modules) {
    LoraBranch& branch = find_site(sites, module.module_path)->branches.back();
    branch.a = convert(module.a, at::kFloat);
    branch.b = convert(module.b, at::kFloat);
    if (module.bias) branch.bias = convert(*module.bias, at::kFloat);
    if (module.magnitude) branch.magnitude = convert(*module.magnitude, at::kFloat);
  }
  for (const auto& [name, tensor] : adapter.replacements)
    find_parameter(sites, name)->replacement = convert(tensor, at::kFloat);
  for (const TokenRows& tokens : adapter.tokens)
    patches.at(tokens.module_path)->rows = convert(tokens.rows, at::kFloat);
}

}  // namespace

FlatParameters bind_adapters(const ModelOptions& options, const Sites& sites, Gradients gradients) {
  check_adapters(options, sites, gradients);
  FlatParameters flat;
  for (std::size_t i = 0; i < options.adapters.size(); ++i) {
    const Adapter& adapter = *options.adapters[i];
    change_base(adapter, options, sites);
    Patches patches;
    for (const LoraModule& module : adapter.modules)
      add_branch(adapter, i, module, *find_site(sites, module.module_path));
    for (const TokenRows& tokens : adapter.tokens)
      patches[tokens.module_path] = add_patch(tokens, sites);
    if (options.trainable)
      flat = bind_trainable(adapter, *options.base, sites, patches, gradients);
    else
      bind_frozen(adapter, sites, patches);
  }
  return flat;
}

std::vector<ParameterInfo> list_parameters(const ModelOptions& options,
                                           const FlatParameters& trainable,
                                           const std::deque<Parameter>& parameters) {
  std::vector<ParameterInfo> result;
  std::set<std::string> own_names;
  for (const Parameter& parameter : parameters)
    if (!parameter.is_alias) own_names.insert(parameter.stored_name);
  // An alias may also be the only name that the model has for a tensor.
  for (const Parameter& parameter : parameters)
    if (!parameter.is_alias || !own_names.contains(parameter.stored_name))
      result.push_back({parameter.base_name, parameter.shape,
                        parameter.quantised ? DType::u8 : dtype_of(parameter.base), false});
  std::set<std::string> trained;
  for (const TrainableParameter& parameter : trainable.layout) trained.insert(parameter.peft_key);
  for (const Adapter* adapter : options.adapters)
    for (const auto& [peft_key, tensor] : adapter->tensors)
      result.push_back({peft_key, tensor.shape, DType::f32, trained.contains(peft_key)});
  return result;
}

}  // namespace lora::engine
