#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "lora/adapter/keys.h"
#include "ops/rules/grouping.h"
#include "ops/rules/rule.h"
#include "ops/selection.h"

namespace lora::rules {
namespace {

using Names = std::vector<std::string>;

constexpr std::array<std::string_view, 4> kHeads{"lm_head", "embed_tokens", "score", "classifier"};

std::string leaf_of(const std::string& path) { return path.substr(path.rfind('.') + 1); }

std::string module_of(const std::string& base_name) {
  const auto dot = base_name.rfind('.');
  return dot == std::string::npos ? std::string() : base_name.substr(0, dot);
}

bool has_index(const std::string& text) {
  return std::any_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; }) ||
         text.find("\\d") != std::string::npos;
}

const Names* listed(const ModuleSelector& selector) { return std::get_if<Names>(&selector); }

// The configuration itself says that only some layers are meant.
bool restricts_layers(const AdapterConfig& config) {
  if (!config.layers_to_transform.empty()) return true;
  if (!std::holds_alternative<std::monostate>(config.exclude_modules)) return true;
  if (const auto* expression = std::get_if<std::string>(&config.target_modules))
    return has_index(*expression);
  const Names* names = listed(config.target_modules);
  return names != nullptr && std::any_of(names->begin(), names->end(), has_index);
}

struct Stack {
  std::vector<std::int64_t> targeted, all;
};

// Modules of the base that differ only in their layer, and which of them are targets.
std::map<std::string, Stack> stacks_of(const Subject& subject) {
  std::set<std::string> targets;
  for (const ModuleInfo& target : subject.targets->lora) targets.insert(target.module_path);
  std::map<std::string, Stack> stacks;
  for (const ModuleInfo& module : subject.base_modules) {
    const std::int64_t layer = layer_of(module.module_path);
    if (layer < 0) continue;
    const std::string index = "." + std::to_string(layer) + ".";
    std::string key = "." + module.module_path + ".";
    key.replace(key.find(index), index.size(), ".*.");
    Stack& stack = stacks[key.substr(1, key.size() - 2)];
    stack.all.push_back(layer);
    if (targets.contains(module.module_path)) stack.targeted.push_back(layer);
  }
  return stacks;
}

void partial_coverage(const Subject& subject, Report& report) {
  const AdapterConfig& config = subject.adapter.config;
  std::map<std::string, Names> covered;
  std::set<std::int64_t> layers;
  for (const auto& [path, stack] : stacks_of(subject)) {
    layers.insert(stack.all.begin(), stack.all.end());
    if (stack.targeted.empty() || stack.targeted.size() == stack.all.size()) continue;
    covered["layers " + ranges(stack.targeted) + " of " + std::to_string(stack.all.size())]
        .push_back(leaf_of(path));
  }
  const Severity severity = restricts_layers(config) ? Severity::note : Severity::warning;
  for (const auto& [extent, leaves] : covered)
    report.add(report.list(leaves, 8) + " adapted in " + extent,
               {.tensor = {}, .module = {}, .hint = {}, .severity = severity});
  std::vector<std::int64_t> absent;
  for (const std::int64_t layer : config.layers_to_transform)
    if (!layers.contains(layer)) absent.push_back(layer);
  std::sort(absent.begin(), absent.end());
  if (!absent.empty() && !layers.empty())
    report.add("layers_to_transform names layers that the base does not have: " + ranges(absent));
}

// Why an entry of target_modules selects nothing although modules of its name exist; empty where
// there are none.
std::string refusal_of(const std::string& entry, const Subject& subject,
                       const Selection& selection) {
  for (const ModuleInfo& module : subject.base_modules)
    if (selects(entry, module.module_path))
      if (std::string refusal = selection.refusal(module.module_path); !refusal.empty())
        return refusal;
  return {};
}

void dead_entries(const Subject& subject, Report& report) {
  if (!subject.targets) return;
  const Names& dead = subject.targets->dead_targets;
  const Names* names = listed(subject.adapter.config.target_modules);
  const Selection selection(subject.adapter.config);
  Names absent;
  std::map<std::string, Names> refused;
  for (const std::string& entry : dead) {
    const std::string refusal = refusal_of(entry, subject, selection);
    (refusal.empty() ? absent : refused[refusal]).push_back(entry);
  }
  const std::string total = std::to_string(names == nullptr ? dead.size() : names->size());
  if (!absent.empty())
    report.add(std::to_string(absent.size()) + " of " + total +
               " target_modules entries match no module of the base: " + report.list(absent));
  for (const auto& [refusal, entries] : refused)
    report.add(std::to_string(entries.size()) + " of " + total +
               " target_modules entries select nothing (" + refusal + "): " + report.list(entries));
  if (!subject.targets->dead_parameters.empty())
    report.add("target_parameters entries match no parameter of the base: " +
               report.list(subject.targets->dead_parameters));
  if (!subject.targets->lora.empty()) partial_coverage(subject, report);
}

// PEFT adds these for classification tasks, whatever the model calls its head.
bool is_added_for_task(const AdapterConfig& config, const std::string& entry) {
  const auto& task = config.task_type;
  if (task == "SEQ_CLS" || task == "TOKEN_CLS") return entry == "classifier" || entry == "score";
  return task == "QUESTION_ANS" && entry == "qa_outputs";
}

bool has_tensors_of(const Adapter& adapter, const std::string& entry) {
  return std::any_of(adapter.replacements.begin(), adapter.replacements.end(),
                     [&](const auto& replacement) {
                       const std::string path = module_of(replacement.first) + ".";
                       return path.find(entry + ".") != std::string::npos;
                     });
}

void dead_saved_entries(const Subject& subject, Report& report) {
  if (!subject.targets) return;
  Names dead = subject.targets->dead_saved;
  std::erase_if(dead, [&](const std::string& entry) {
    return is_added_for_task(subject.adapter.config, entry) ||
           has_tensors_of(subject.adapter, entry);
  });
  if (dead.empty()) return;
  report.add("modules_to_save entries match no module of the base: " + report.list(dead));
}

void overreaching_entries(const Subject& subject, Report& report) {
  std::set<std::string> saved;
  if (subject.targets) {
    for (const ModuleInfo& module : subject.targets->saved) saved.insert(module.module_path);
  } else {
    for (const auto& [name, tensor] : subject.adapter.replacements) saved.insert(module_of(name));
  }
  for (const std::string& entry : subject.adapter.config.modules_to_save) {
    Names captured;
    for (const std::string& path : saved)
      if (path.size() > entry.size() && path.ends_with(entry) &&
          path[path.size() - entry.size() - 1] != '.')
        captured.push_back(path);
    if (!captured.empty())
      report.add("modules_to_save entry " + entry + " also captures " +
                     report.list(group_layers(captured)) + ": PEFT compares endings without a dot",
                 {.tensor = {}, .module = captured.front(), .hint = {}, .severity = {}});
  }
}

bool looks_like_head(const std::string& base_name) {
  constexpr std::array<std::string_view, 4> kParts{"classif", "score", "qa_outputs", "head"};
  return std::any_of(kParts.begin(), kParts.end(), [&](std::string_view part) {
    return base_name.find(part) != std::string::npos;
  });
}

void head_missing(const Subject& subject, Report& report) {
  const Adapter& adapter = subject.adapter;
  const auto& task = adapter.config.task_type;
  const bool needs_head = task == "SEQ_CLS" || task == "TOKEN_CLS" || task == "QUESTION_ANS";
  const bool has_head =
      std::any_of(adapter.replacements.begin(), adapter.replacements.end(),
                  [](const auto& entry) { return looks_like_head(entry.first); }) ||
      std::any_of(adapter.modules.begin(), adapter.modules.end(),
                  [](const LoraModule& module) { return looks_like_head(module.base_name); });
  if (needs_head && !has_head)
    report.add("the task " + *task +
               " needs a head and the file has none: predictions will be "
               "random");
  if (subject.targets) return;  // key-missing and modules-to-save-dead know better
  Names absent;
  for (const std::string& entry : adapter.config.modules_to_save)
    if (!is_added_for_task(adapter.config, entry) && !has_tensors_of(adapter, entry))
      absent.push_back(entry);
  if (!absent.empty())
    report.add("modules_to_save entries without tensors: " + report.list(absent) +
               "; PEFT fails on them, or never found such modules");
}

bool lost_biases(const AdapterConfig& config) {
  const auto release = peft_release(config);
  return !release || *release <= std::pair(0, 20);
}

void lora_only_biases(const Subject& subject, Report& report) {
  const Adapter& adapter = subject.adapter;
  if (adapter.config.bias != BiasMode::lora_only || adapter.modules.empty()) return;
  const auto has_bias = [&](const std::string& path) {
    return adapter.replacements.contains(path + ".bias");
  };
  const std::string lost =
      "; PEFT up to 0.20.0 trains them and loses them when it saves (written by " +
      (adapter.config.peft_version ? "PEFT " + *adapter.config.peft_version
                                   : std::string("an unknown version")) +
      ")";
  if (subject.targets) {
    Names absent;
    for (const ModuleInfo& target : subject.targets->lora)
      if (target.has_bias && adapter.find(target.module_path) && !has_bias(target.module_path))
        absent.push_back(target.module_path);
    if (!absent.empty())
      report.add("bias is lora_only and the trained biases of " + counted(absent.size(), "module") +
                     " are not in the file: " + report.list(group_layers(absent)) + lost,
                 {.tensor = {}, .module = absent.front(), .hint = {}, .severity = {}});
    return;
  }
  const bool has_any =
      std::any_of(adapter.replacements.begin(), adapter.replacements.end(),
                  [](const auto& entry) { return entry.first.ends_with(".bias"); });
  if (!has_any && lost_biases(adapter.config))
    report.add("bias is lora_only and the file has no bias" + lost +
                   "; with --base it is certain whether the layers have any",
               {.tensor = {}, .module = {}, .hint = {}, .severity = Severity::warning});
}

// A list that all-linear was resolved to: full paths of all linear layers.
bool is_expansion(const Subject& subject, const Names& names) {
  if (subject.base_modules.empty() || names.size() < 2) return false;
  const std::set<std::string> set(names.begin(), names.end());
  std::size_t linear = 0;
  for (const ModuleInfo& module : subject.base_modules)
    if (module.kind == LayerKind::linear || module.kind == LayerKind::conv1d) {
      ++linear;
      if (!set.contains(module.module_path)) return false;
    }
  return linear == set.size();
}

void head_adapted(const Subject& subject, Report& report) {
  const AdapterConfig& config = subject.adapter.config;
  const Json* tying = config.other.find("ensure_weight_tying");
  const bool is_tied = tying != nullptr && tying->as_bool() == true;
  Names named, swept;
  for (const LoraModule& module : subject.adapter.modules) {
    const std::string leaf = leaf_of(module.module_path);
    const bool is_head =
        std::find(kHeads.begin(), kHeads.end(), leaf) != kHeads.end() ||
        std::any_of(subject.base_modules.begin(), subject.base_modules.end(),
                    [&](const ModuleInfo& info) {
                      return info.is_output_head && info.module_path == module.module_path;
                    });
    if (!is_head) continue;
    const Names* names = listed(config.target_modules);
    const auto* expression = std::get_if<std::string>(&config.target_modules);
    // With ensure_weight_tying the head follows from the embedding.
    const bool is_named =
        is_tied || (expression != nullptr ? expression->find(leaf) != std::string::npos
                                          : names == nullptr || !is_expansion(subject, *names));
    (is_named ? named : swept).push_back(module.module_path);
  }
  const std::string rest = "; many servers refuse adapted heads and embeddings";
  if (!swept.empty())
    report.add("target_modules swept up " + report.list(swept) + " without naming it" + rest,
               {.tensor = {}, .module = swept.front(), .hint = {}, .severity = {}});
  if (!named.empty())
    report.add("target_modules names " + report.list(named) + rest,
               {.tensor = {}, .module = named.front(), .hint = {}, .severity = Severity::note});
}

}  // namespace

const std::vector<Rule>& target_rules() {
  static const std::vector<Rule> rules{
      {{"LV205", "target-entry-dead", Severity::warning,
        "target_modules and layers_to_transform against the base, by entry and by layer",
        "An entry selects nothing, or modules of some layers only (a note when the configuration "
        "says which layers).",
        "correct the entry, or remove it when the file has no tensors for it"},
       dead_entries},
      {{"LV206", "modules-to-save-dead", Severity::warning, "modules_to_save against the base",
        "An entry selects nothing; a head that was meant to be saved may be missing.",
        "correct or remove the entry"},
       dead_saved_entries},
      {{"LV209", "modules-to-save-overreach", Severity::warning,
        "the modules that modules_to_save entries end in",
        "An entry captures more than the module of its name: head also saves lm_head.",
        "write the full name of the module"},
       overreaching_entries},
      {{"LV210", "head-missing", Severity::error,
        "task_type and modules_to_save against the tensors",
        "A head that was trained is not in the file and is random after loading.",
        "recover it from the training checkpoint: lora save CHECKPOINT -o DIR"},
       head_missing},
      {{"LV211", "bias-lora-only-missing", Severity::error,
        "bias lora_only against the tensors and the base's biases",
        "Trained biases were lost at save time (a warning without a base: the layers may have "
        "none).",
        "recover them from a full checkpoint: lora save CHECKPOINT -o DIR; otherwise set bias to "
        "none so that the file is honest"},
       lora_only_biases},
      {{"LV214", "head-adapted", Severity::warning,
        "LoRA layers on heads and embeddings, and how target_modules selects them",
        "An expansion such as all-linear reached the output head (a note when it is named).",
        "exclude it (exclude_modules) and train again, or keep it knowingly"},
       head_adapted},
  };
  return rules;
}

}  // namespace lora::rules
