#include "lora/adapter/targets.h"

#include <algorithm>
#include <array>
#include <set>

#include "adapter/parameter_sites.h"
#include "adapter/target_match.h"
#include "adapter/target_steps.h"
#include "lora/base/error.h"

namespace lora {
namespace {

constexpr std::array<std::string_view, 4> kUnsavableClasses{"ModuleDict", "ModuleList",
                                                            "ParameterDict", "ParameterList"};

bool takes_lora(const ModuleInfo& module) {
  switch (module.kind) {
    case LayerKind::linear:
    case LayerKind::conv1d:
    case LayerKind::embedding:
    case LayerKind::convolution:
    case LayerKind::attention:
      return true;
    case LayerKind::norm:
    case LayerKind::parameter:
    case LayerKind::other:
      return false;
  }
  return false;
}

std::string quoted(const std::string& text) { return "\"" + text + "\""; }

std::string describe(const ModuleSelector& selector) {
  if (const auto* pattern = std::get_if<std::string>(&selector))
    return "the expression " + quoted(*pattern);
  std::string text;
  for (const std::string& name : std::get<std::vector<std::string>>(selector))
    text += (text.empty() ? "" : ", ") + quoted(name);
  return "[" + text + "]";
}

std::string leaf_names(const ModuleList& modules) {
  std::set<std::string> names;
  for (const ModuleInfo& module : modules)
    if (takes_lora(module))
      names.insert(module.module_path.substr(module.module_path.rfind('.') + 1));
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

void require_usable(const AdapterConfig& config) {
  if (std::holds_alternative<std::monostate>(config.target_modules) &&
      target_parameters(config).empty())
    throw Error(ErrorKind::usage,
                "cannot resolve targets: no target_modules are set, expected a list of module "
                "names, a regular expression or all-linear");
  for (const std::string& entry : config.modules_to_save)
    if (entry.empty())
      throw Error(ErrorKind::usage,
                  "cannot resolve targets: found an empty name in modules_to_save, expected names");
}

Error nothing_matches(const AdapterConfig& config, const ModuleList& modules, bool has_excluded) {
  std::string message = "cannot resolve targets: ";
  if (!std::holds_alternative<std::monostate>(config.target_modules))
    message += "target_modules " + describe(config.target_modules);
  const std::vector<std::string> parameters = target_parameters(config);
  if (!parameters.empty())
    message += std::string(message.ends_with(": ") ? "" : " and ") + "target_parameters " +
               describe(parameters);
  message += " matches no module of the base";
  if (has_excluded) message += " that is not excluded or saved in full";
  return Error(ErrorKind::incompatible, message + ", expected names among " + leaf_names(modules))
      .with_hint(
          "list entries match whole endings of module paths; a regular expression must "
          "match a whole path");
}

struct LoraTargets {
  std::vector<ModuleInfo> found;
  bool has_excluded = false;
};

LoraTargets find_lora(const AdapterConfig& settled, const AdapterConfig& original,
                      const ModuleList& modules) {
  LoraTargets targets;
  if (std::holds_alternative<std::monostate>(settled.target_modules)) return targets;
  const TargetMatcher matcher(settled);
  for (const ModuleInfo& module : modules) {
    if (module.module_path.empty() || module.kind == LayerKind::parameter) continue;
    const auto verdict = matcher.check(module.module_path);
    if (verdict == TargetMatcher::Verdict::excluded || verdict == TargetMatcher::Verdict::saved)
      targets.has_excluded = true;
    if (verdict != TargetMatcher::Verdict::targeted) continue;
    if (!takes_lora(module))
      throw Error(ErrorKind::incompatible,
                  "cannot resolve targets: target_modules " + describe(original.target_modules) +
                      " selects " + module.module_path + " of class " + module.class_name +
                      ", expected modules that can take LoRA layers (Linear, Conv1D, Embedding, "
                      "Conv1d to Conv3d, MultiheadAttention)")
          .with_hint("modules that can: " + leaf_names(modules));
    targets.found.push_back(module);
  }
  return targets;
}

bool is_inside(const std::string& path, const std::string& parent) {
  return path.size() > parent.size() && path[parent.size()] == '.' && path.starts_with(parent);
}

std::vector<ModuleInfo> find_saved(const AdapterConfig& config, const ModuleList& modules,
                                   const std::vector<ModuleInfo>& lora) {
  std::vector<ModuleInfo> saved;
  for (const ModuleInfo& module : modules) {
    if (module.kind == LayerKind::parameter) continue;
    const std::string& path = module.module_path;
    const bool is_named = std::any_of(
        config.modules_to_save.begin(), config.modules_to_save.end(),
        [&](const std::string& entry) { return !path.empty() && path.ends_with(entry); });
    const bool is_covered = std::any_of(saved.begin(), saved.end(), [&](const ModuleInfo& outer) {
      return is_inside(path, outer.module_path);
    });
    if (!is_named || is_covered) continue;
    const bool has_lora = std::any_of(lora.begin(), lora.end(), [&](const ModuleInfo& target) {
      return target.module_path == path;
    });
    if (has_lora)
      throw Error(ErrorKind::incompatible,
                  "cannot resolve targets: modules_to_save also selects " + path +
                      ", which target_modules gives LoRA layers, expected one of the two")
          .with_hint("entries of modules_to_save match any ending: head also matches lm_head");
    if (std::find(kUnsavableClasses.begin(), kUnsavableClasses.end(), module.class_name) !=
        kUnsavableClasses.end())
      throw Error(ErrorKind::incompatible, "cannot resolve targets: modules_to_save selects " +
                                               path + " of class " + module.class_name +
                                               ", expected a module with a forward pass");
    saved.push_back(module);
  }
  return saved;
}

template <typename Matches>
std::vector<std::string> dead_entries(const std::vector<std::string>& entries,
                                      const std::vector<ModuleInfo>& modules, Matches matches) {
  std::vector<std::string> dead;
  for (const std::string& entry : entries)
    if (std::none_of(modules.begin(), modules.end(),
                     [&](const ModuleInfo& module) { return matches(module.module_path, entry); }))
      dead.push_back(entry);
  return dead;
}

}  // namespace

ResolvedTargets resolve_targets(const AdapterConfig& config, const ModuleList& base_modules,
                                bool is_transformers) {
  require_usable(config);
  const ModuleList modules = replicate_layers(config, base_modules);
  AdapterConfig settled = config;
  expand_targets(settled, modules, is_transformers);

  ResolvedTargets result;
  LoraTargets targets = find_lora(settled, config, modules);
  result.lora = std::move(targets.found);
  result.parameters = find_parameters(config, modules, result.lora);
  if (result.lora.empty() && result.parameters.empty())
    throw nothing_matches(config, modules, targets.has_excluded);
  result.saved = find_saved(config, modules, result.lora);
  if (const auto* names = std::get_if<std::vector<std::string>>(&config.target_modules))
    result.dead_targets = dead_entries(
        *names, result.lora,
        [](const std::string& path, const std::string& entry) { return selects(entry, path); });
  // Against all modules: an entry inside another saved module is covered, not dead.
  result.dead_saved = dead_entries(
      config.modules_to_save, modules,
      [](const std::string& path, const std::string& entry) { return path.ends_with(entry); });
  std::vector<std::string> paths;
  for (const ModuleInfo& module : result.lora) paths.push_back(module.module_path);
  for (const ParameterTarget& target : result.parameters) paths.push_back(target.base_name);
  result.dead_patterns = PatternTable(config).dead_keys(paths);
  for (const std::string& entry : target_parameters(config))
    if (std::none_of(
            result.parameters.begin(), result.parameters.end(),
            [&](const ParameterTarget& target) { return selects(entry, target.base_name); }))
      result.dead_parameters.push_back(entry);
  return result;
}

}  // namespace lora
