#include <algorithm>
#include <set>

#include "adapter/target_match.h"
#include "adapter/target_steps.h"
#include "lora/adapter/targets.h"
#include "lora/base/error.h"

namespace lora {
namespace {

constexpr std::size_t kCondenseFrom = 20;
constexpr std::string_view kAllLinear = "all-linear";

bool is_all_linear(const ModuleSelector& selector) {
  const auto* text = std::get_if<std::string>(&selector);
  return text != nullptr &&
         std::equal(text->begin(), text->end(), kAllLinear.begin(), kAllLinear.end(),
                    [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b; });
}

// The classification head has no fixed name; PEFT takes the first of these.
std::string head_to_leave_out(const AdapterConfig& config, const ModuleList& modules) {
  for (const ModuleInfo& module : modules)
    if (module.is_output_head) return module.module_path;
  if (config.task_type != "SEQ_CLS") return {};
  for (const std::string name : {"score", "classifier"})
    if (std::any_of(modules.begin(), modules.end(),
                    [&](const ModuleInfo& module) { return module.module_path == name; }))
      return name;
  return {};
}

// "a.b.c" -> c, b.c, a.b.c
std::vector<std::string> endings_of(const std::string& path) {
  std::vector<std::string> endings;
  for (std::size_t dot = path.rfind('.'); dot != std::string::npos && dot != 0;
       dot = path.rfind('.', dot - 1))
    endings.push_back(path.substr(dot + 1));
  if (path.starts_with('.')) endings.push_back(path.substr(1));
  endings.push_back(path);
  return endings;
}

std::set<std::string> endings_of_others(const std::set<std::string>& targets,
                                        const ModuleList& modules) {
  std::set<std::string> endings;
  for (const ModuleInfo& module : modules) {
    if (module.kind == LayerKind::parameter) continue;
    const std::string& path = module.module_path;
    const bool is_target =
        std::any_of(targets.begin(), targets.end(),
                    [&](const std::string& entry) { return selects(entry, path); });
    if (is_target) continue;
    for (std::string& ending : endings_of(path)) endings.insert(std::move(ending));
  }
  return endings;
}

// _find_minimal_target_modules: shortest endings first, targets in the order of their endings.
std::set<std::string> smallest_endings(const std::set<std::string>& targets,
                                       const ModuleList& modules) {
  const std::set<std::string> taken = endings_of_others(targets, modules);
  std::set<std::vector<std::string>> ordered;
  for (const std::string& target : targets) ordered.insert(endings_of(target));
  std::set<std::string> chosen;
  for (const std::vector<std::string>& endings : ordered) {
    const std::string& target = endings.back();
    const auto is_covered = [&] {
      return std::any_of(chosen.begin(), chosen.end(), [&](const std::string& ending) {
        return ending != target && selects(ending, target);
      });
    };
    for (const std::string& ending : endings) {
      if (chosen.contains(ending) || taken.contains(ending) || is_covered()) continue;
      chosen.insert(ending);
      break;
    }
  }
  return chosen.empty() ? targets : chosen;
}

}  // namespace

void expand_targets(AdapterConfig& config, const ModuleList& modules, bool is_transformers) {
  if (is_all_linear(config.target_modules)) {
    const std::string head = is_transformers ? head_to_leave_out(config, modules) : "";
    std::vector<std::string> names;
    for (const ModuleInfo& module : modules)
      if ((module.kind == LayerKind::linear || module.kind == LayerKind::conv1d) &&
          (head.empty() || module.module_path != head))
        names.push_back(module.module_path);
    std::sort(names.begin(), names.end());
    config.target_modules = std::move(names);
  }
  auto* names = std::get_if<std::vector<std::string>>(&config.target_modules);
  if (names == nullptr) return;
  const std::set<std::string> targets(names->begin(), names->end());
  if (targets.contains(""))
    throw Error(ErrorKind::usage,
                "cannot resolve target_modules: found an empty name in the list, expected names");
  if (targets.size() < kCondenseFrom) return;
  const std::set<std::string> endings = smallest_endings(targets, modules);
  if (endings.size() < targets.size()) names->assign(endings.begin(), endings.end());
}

void expand_all_linear(AdapterConfig& config, const ModuleList& modules, bool is_transformers) {
  expand_targets(config, replicate_layers(config, modules), is_transformers);
}

void add_task_heads(AdapterConfig& config) {
  std::vector<std::string> heads;
  if (config.task_type == "SEQ_CLS" || config.task_type == "TOKEN_CLS")
    heads = {"classifier", "score"};
  if (config.task_type == "QUESTION_ANS") heads = {"qa_outputs"};
  for (std::string& head : heads)
    if (std::find(config.modules_to_save.begin(), config.modules_to_save.end(), head) ==
        config.modules_to_save.end())
      config.modules_to_save.push_back(std::move(head));
}

}  // namespace lora
