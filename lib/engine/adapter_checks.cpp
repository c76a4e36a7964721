#include "engine/adapter_checks.h"

#include <algorithm>
#include <array>
#include <set>

#include "lora/base/error.h"

namespace lora::engine {
namespace {

// Initialisations whose adapters only make sense on a base that they changed first.
constexpr std::array<std::string_view, 6> kBaseChanging = {"pissa", "olora",   "corda",
                                                           "loftq", "lora_ga", "mica"};

void refuse_unsupported(const Adapter& adapter) {
  const std::string* init = adapter.config.init_lora_weights.as_string();
  const bool changes_base =
      init != nullptr &&
      std::any_of(kBaseChanging.begin(), kBaseChanging.end(),
                  [&](std::string_view name) { return init->starts_with(name); });
  if (changes_base)
    throw Error(ErrorKind::unsupported,
                "loading an adapter with init_lora_weights \"" + *init +
                    "\": its base was changed at initialisation, expected a plain LoRA adapter")
        .in_file(adapter.path.string())
        .with_hint(
            "convert it in PEFT with save_pretrained(path_initial_model_for_weight_"
            "conversion=...)");
  std::vector<std::string> offenders;
  for (const LoraModule& module : adapter.modules) {
    if (module.magnitude)
      offenders.push_back(module.module_path + " (DoRA)");
    else if (module.kind == LayerKind::embedding)
      offenders.push_back(module.module_path + " (embedding)");
    else if (module.kind != LayerKind::linear)
      offenders.push_back(module.module_path + " (not a linear layer)");
  }
  if (!offenders.empty())
    throw Error(ErrorKind::unsupported,
                "loading an adapter: the engine computes plain LoRA on linear layers, found " +
                    join_offenders(offenders))
        .in_file(adapter.path.string());
}

void check_module(const LoraModule& module, const Sites& sites,
                  std::vector<std::string>& offenders) {
  const Linear* linear = find_linear(sites, module.module_path);
  if (linear == nullptr) {
    const bool exists = find_parameter(sites, module.module_path + ".weight") != nullptr;
    offenders.push_back(module.module_path +
                        (exists ? " is not a linear layer" : " does not exist in the base"));
    return;
  }
  const std::vector<std::int64_t> a{module.rank, linear->inputs()};
  const std::vector<std::int64_t> b{linear->outputs(), module.rank};
  if (module.a.shape != a || module.b.shape != b)
    offenders.push_back(module.module_path + " has A " + shape_to_string(module.a.shape) +
                        " and B " + shape_to_string(module.b.shape) + ", expected " +
                        shape_to_string(a) + " and " + shape_to_string(b));
  if (module.bias && module.bias->shape != std::vector<std::int64_t>{linear->outputs()})
    offenders.push_back(module.module_path + " has a lora_B bias of shape " +
                        shape_to_string(module.bias->shape) + ", expected " +
                        shape_to_string(std::vector<std::int64_t>{linear->outputs()}));
  for (const Tensor* tensor : {&module.a, &module.b, module.bias ? &*module.bias : nullptr})
    if (tensor != nullptr && !is_float(tensor->dtype))
      offenders.push_back(module.module_path + " has dtype " +
                          std::string(to_string(tensor->dtype)) + ", expected a float");
}

void check_replacement(const std::string& name, const Tensor& tensor, const Sites& sites,
                       std::set<std::string>& replaced, std::vector<std::string>& offenders) {
  const Parameter* parameter = find_parameter(sites, name);
  if (parameter == nullptr)
    offenders.push_back("parameter " + name + " does not exist in the base");
  else if (parameter->shape != tensor.shape)
    offenders.push_back("parameter " + name + " has shape " + shape_to_string(tensor.shape) +
                        ", expected " + shape_to_string(parameter->shape));
  else if (!is_float(tensor.dtype))
    offenders.push_back("parameter " + name + " has dtype " + std::string(to_string(tensor.dtype)) +
                        ", expected a float");
  if (!replaced.insert(name).second)
    offenders.push_back("parameter " + name + " is replaced by two adapters");
}

}  // namespace

Linear* find_linear(const Sites& sites, std::string_view module_path) {
  for (Linear* linear : sites.linears)
    if (linear->module_path() == module_path) return linear;
  return nullptr;
}

Parameter* find_parameter(const Sites& sites, std::string_view base_name) {
  for (Parameter& parameter : *sites.parameters)
    if (parameter.base_name == base_name) return &parameter;
  return nullptr;
}

void check_adapters(const ModelOptions& options, const Sites& sites) {
  if (options.trainable && options.adapters.size() > 1)
    throw Error(ErrorKind::usage, "loading " + std::to_string(options.adapters.size()) +
                                      " adapters as trainable, expected one");
  std::set<std::string> replaced;
  for (const Adapter* adapter : options.adapters) {
    refuse_unsupported(*adapter);
    std::vector<std::string> offenders;
    for (const KeyProblem& problem : adapter->problems)
      offenders.push_back(problem.key + ": " + problem.message);
    for (const LoraModule& module : adapter->modules) check_module(module, sites, offenders);
    for (const auto& [name, tensor] : adapter->replacements)
      check_replacement(name, tensor, sites, replaced, offenders);
    if (!offenders.empty())
      throw Error(ErrorKind::incompatible,
                  "putting the adapter onto the base: " + std::to_string(offenders.size()) +
                      " problems: " + join_offenders(offenders))
          .in_file(adapter->path.string());
  }
}

}  // namespace lora::engine
