#include <algorithm>
#include <set>
#include <string>

#include "adapter/parameter_sites.h"
#include "adapter/target_match.h"
#include "adapter/target_steps.h"
#include "lora/adapter/keys.h"
#include "lora/base/error.h"
#include "lora/base/tensor.h"

namespace lora {
namespace {

struct Parameter {
  std::string module_path;
  std::string base_name;
  std::vector<std::int64_t> shape;  ///< empty where the list does not say
};

// weight and bias are part of the module's own entry; PyTorch registers the weight first.
std::vector<Parameter> parameters_of_model(const ModuleList& modules) {
  std::vector<Parameter> parameters;
  for (const ModuleInfo& module : modules) {
    const std::string& path = module.module_path;
    if (module.kind == LayerKind::parameter) {
      const std::size_t dot = path.rfind('.');
      parameters.push_back(
          {dot == std::string::npos ? "" : path.substr(0, dot), path, module.weight_shape});
      continue;
    }
    const std::string prefix = path.empty() ? "" : path + ".";
    const bool is_attention = module.kind == LayerKind::attention;
    if (!module.weight_shape.empty())
      parameters.push_back(
          {path, prefix + (is_attention ? "in_proj_weight" : "weight"), module.weight_shape});
    if (module.has_bias) parameters.push_back({path, prefix + "bias", {module.out_features}});
  }
  return parameters;
}

Error refuse(const Parameter& parameter, const std::string& found, const std::string& expected) {
  return Error(ErrorKind::incompatible, "cannot resolve targets: target_parameters selects " +
                                            parameter.base_name + ", " + found + ", expected " +
                                            expected);
}

void require_wrappable(const Parameter& parameter, const std::set<std::string>& lora_paths,
                       const std::vector<ParameterTarget>& found) {
  if (parameter.module_path.empty())
    throw refuse(parameter, "a parameter of the model itself", "parameters of modules inside it");
  if (lora_paths.contains(parameter.module_path))
    throw refuse(parameter, "whose module target_modules selects too", "one of the two")
        .with_hint("target_modules = [] targets parameters only");
  if (parameter.shape.size() != 2 && parameter.shape.size() != 3)
    throw refuse(parameter, "of shape " + shape_to_string(parameter.shape),
                 "2 dimensions, or 3 for a stack of experts");
  for (const ParameterTarget& outer : found)
    if (parameter.module_path.starts_with(without_base_layers(outer.module_path) + "."))
      throw refuse(parameter, "inside the module of " + outer.base_name + ", also selected",
                   "one of the two");
}

}  // namespace

std::vector<ParameterTarget> find_parameters(const AdapterConfig& config, const ModuleList& modules,
                                             const std::vector<ModuleInfo>& lora) {
  std::vector<ParameterTarget> found;
  const std::vector<std::string> entries = target_parameters(config);
  if (entries.empty()) return found;
  std::set<std::string> lora_paths;
  for (const ModuleInfo& module : lora) lora_paths.insert(module.module_path);
  for (const Parameter& parameter : parameters_of_model(modules)) {
    const bool is_selected =
        std::any_of(entries.begin(), entries.end(),
                    [&](const std::string& entry) { return selects(entry, parameter.base_name); });
    if (!is_selected) continue;
    require_wrappable(parameter, lora_paths, found);
    // The new layer goes around those of the module's parameters before it.
    for (ParameterTarget& inner : found)
      if (without_base_layers(inner.module_path) == parameter.module_path)
        inner.module_path += ".base_layer";
    found.push_back({parameter.module_path, parameter.base_name, parameter.shape});
  }
  return found;
}

}  // namespace lora
