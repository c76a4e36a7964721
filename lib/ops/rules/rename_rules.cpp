#include <algorithm>
#include <map>
#include <set>

#include "lora/adapter/keys.h"
#include "lora/adapter/name_mapping.h"
#include "lora/adapter/update.h"
#include "ops/rules/expert_names.h"
#include "ops/rules/grouping.h"
#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

using Names = std::vector<std::string>;

constexpr const char* kFuseHint =
    "PEFT 0.21 with transformers 5 fuses the experts of Mixtral and Qwen2-MoE when it loads them: "
    "load it there on this base and save it again";
constexpr const char* kSplitHint =
    "give the base that it was trained on, as transformers 5 holds it; PEFT does not split stacks";

// What the two layouts of experts explain; the modules it is about.
std::set<std::string> expert_layouts(const Subject& subject, Report& report) {
  std::set<std::string> explained;
  const auto add = [&](const std::optional<ExpertNames>& found, const char* hint) {
    if (!found) return;
    explained.insert(found->modules.begin(), found->modules.end());
    report.add(found->message,
               {.tensor = {}, .module = found->module, .hint = hint, .severity = {}});
  };
  add(single_experts_on_fused_base(subject), kFuseHint);
  add(fused_experts_on_single_base(subject), kSplitHint);
  return explained;
}

void architecture_rename(const Subject& subject, Report& report) {
  if (subject.base == nullptr || !subject.accounting) return;
  const std::set<std::string> in_base = paths_of(subject.base_modules);
  // key-foreign-prefix explains these.
  for (const LoraModule& module : subject.adapter.modules)
    if (!prefix_before(module.module_path).empty()) return;
  const std::set<std::string> experts = expert_layouts(subject, report);
  std::map<std::string, const LoraModule*> sites;
  Names paths;
  for (const LoraModule& module : subject.adapter.modules) {
    if (experts.contains(module.module_path)) continue;
    paths.push_back(module.module_path);
    sites[module.module_path] = &module;
  }
  std::map<std::string, const ModuleInfo*> infos;
  for (const ModuleInfo& info : subject.base_modules) infos[info.module_path] = &info;
  const auto may_be = [&](const std::string& path, const std::string& base_path) {
    const LoraModule& site = *sites.at(path);
    const ModuleInfo& info = *infos.at(base_path);
    if (info.in_features == 0 || site.a.shape.size() != 2) return true;
    const MatrixShape shape = update_shape(site);
    return shape.columns == info.in_features && shape.rows == info.out_features;
  };
  const NameMapping mapping = map_names(paths, {in_base.begin(), in_base.end()}, may_be);
  if (mapping.renames.empty() && mapping.ambiguous.empty()) return;
  std::string message = std::to_string(mapping.unchanged) + " of " +
                        counted(paths.size(), "module") + " are in the base under their name";
  if (!mapping.renames.empty())
    message += ", " + std::to_string(mapping.unchanged + mapping.renames.size()) +
               " after renaming " + describe_rules(mapping);
  if (!mapping.ambiguous.empty()) {
    const auto& [path, candidates] = *mapping.ambiguous.begin();
    message += "; " + std::to_string(mapping.ambiguous.size()) + " ambiguous: " + path +
               " may be " + report.list(candidates, 3);
  }
  if (!mapping.unmatched.empty())
    message += "; " + std::to_string(mapping.unmatched.size()) +
               " resemble nothing in the base: " + report.list(group_layers(mapping.unmatched), 3);
  report.add(std::move(message),
             {.tensor = {},
              .module = mapping.renames.empty() ? mapping.ambiguous.begin()->first
                                                : mapping.renames.begin()->first,
              .hint = {},
              .severity = {}});
}

bool is_read_as_text(const std::string& component) {
  return component.find("weight") != std::string::npos ||
         component.find("lora_") != std::string::npos;
}

void name_collision(const Subject& subject, Report& report) {
  const auto has_odd_part = [](const std::string& path) {
    std::size_t begin = 0;
    while (begin <= path.size()) {
      const std::size_t end = std::min(path.find('.', begin), path.size());
      if (is_read_as_text(path.substr(begin, end - begin))) return true;
      begin = end + 1;
    }
    return false;
  };
  Names odd;
  std::set<std::string> components;
  for (const LoraModule& module : subject.adapter.modules) {
    if (has_odd_part(module.module_path)) odd.push_back(module.module_path);
    for (std::size_t begin = 0; begin <= module.module_path.size();) {
      const std::size_t end =
          std::min(module.module_path.find('.', begin), module.module_path.size());
      components.insert(module.module_path.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  const auto release = peft_release(subject.adapter.config);
  const bool is_old = !release || *release <= std::pair(0, 20);
  const std::string limit =
      ": PEFT up to 0.20.0 reads keys as text and will not load this "
      "correctly";
  if (!odd.empty())
    report.add(counted(odd.size(), "module") + " have weight or lora_ in their path (" +
                   report.list(group_layers(odd), 3) + ")" + limit,
               {.tensor = {},
                .module = odd.front(),
                .hint = {},
                .severity = is_old ? Severity::warning : Severity::note});
  // Only the names inside the keys are known to be adapter names; a directory can have any name.
  for (const std::string& key : subject.adapter.unclean_keys) {
    const std::string name = parse_key(key).adapter_name;
    if (name.empty() || name == "default") continue;
    const bool is_part = std::string_view("lora_").find(name) != std::string_view::npos;
    if (!is_part && !components.contains(name)) continue;
    report.add("the adapter name \"" + name + "\" is " +
                   (is_part ? "part of lora_" : "also the name of a module") + limit,
               {.tensor = key, .module = {}, .hint = {}, .severity = {}});
    break;
  }
  const std::string folder = subject.adapter.directory().filename().string();
  if (components.contains(folder))
    report.add("the directory is called \"" + folder +
                   "\" like a module; as an adapter name PEFT up to 0.20.0 will not load it "
                   "correctly",
               {.tensor = {}, .module = {}, .hint = {}, .severity = Severity::note});
}

}  // namespace

const std::vector<Rule>& rename_rules() {
  static const std::vector<Rule> rules{
      {{"LV310", "key-architecture-rename", Severity::error,
        "modules that the base lacks against those of its modules that end alike, single experts "
        "against stacks of experts",
        "The base's modules were renamed or fused since the adapter was made; PEFT loads none of "
        "these tensors.",
        "apply the mapping: lora repair ADAPTER --base BASE -o DIR"},
       architecture_rename},
      {{"LV311", "key-name-collision", Severity::warning,
        "components of module paths and the adapter's name",
        "Older PEFT takes such names apart wrongly (a note where the file was written by a PEFT "
        "that does not, and for the name of the directory).",
        "load it with PEFT 0.21 or later, or rename the adapter"},
       name_collision},
  };
  return rules;
}

}  // namespace lora::rules
