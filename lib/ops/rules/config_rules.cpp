#include <cmath>

#include "lora/adapter/keys.h"
#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

void unknown_keys(const Subject& subject, Report& report) {
  const auto unknown = subject.adapter.config.unknown_fields();
  if (unknown.empty()) return;
  report.add("adapter_config.json has fields that PEFT 0.21.2 does not know: " +
             join_some(unknown));
}

void rank_disagrees(const Subject& subject, Report& report) {
  for (const KeyProblem& problem : subject.adapter.problems)
    if (problem.kind == KeyProblem::Kind::rank_mismatch)
      report.add(problem.message, {.tensor = problem.key,
                                   .module = parse_key(problem.key).module_path,
                                   .hint = {},
                                   .severity = {}});
}

void scaling_changed(const Subject& subject, Report& report) {
  if (!subject.manifest) return;
  std::vector<std::string> changed;
  std::string example;
  for (const LoraModule& module : subject.adapter.modules) {
    const auto recorded = subject.manifest->scaling.find(module.module_path);
    if (recorded == subject.manifest->scaling.end()) continue;
    if (std::fabs(module.scaling - recorded->second) <= 1e-9 * std::fabs(recorded->second))
      continue;
    if (changed.empty())
      example = "scaling is " + figure(module.scaling) + " (alpha " + figure(module.alpha) +
                ", rank " + std::to_string(module.rank) + "), the record says " +
                figure(recorded->second);
    changed.push_back(module.module_path);
  }
  if (changed.empty()) return;
  report.add(
      example + ", in " + std::to_string(changed.size()) + " modules: " + join_some(changed, 3),
      {.tensor = {}, .module = changed.front(), .hint = {}, .severity = {}});
}

void dead_entries(const Subject& subject, Report& report) {
  if (!subject.targets || subject.targets->dead_targets.empty()) return;
  report.add("target_modules entries match no module of the base: " +
             join_some(subject.targets->dead_targets));
}

void dead_saved_entries(const Subject& subject, Report& report) {
  if (!subject.targets) return;
  std::vector<std::string> dead = subject.targets->dead_saved;
  // PEFT itself adds these two for classification tasks, whatever the model calls its head.
  const auto& task = subject.adapter.config.task_type;
  if (task == "SEQ_CLS" || task == "TOKEN_CLS")
    std::erase_if(dead,
                  [](const std::string& name) { return name == "classifier" || name == "score"; });
  if (dead.empty()) return;
  report.add("modules_to_save entries match no module of the base: " + join_some(dead));
}

void dead_patterns(const Subject& subject, Report& report) {
  if (!subject.targets || subject.targets->dead_patterns.empty()) return;
  report.add("rank_pattern or alpha_pattern keys match no targeted module: " +
             join_some(subject.targets->dead_patterns));
}

}  // namespace

const std::vector<Rule>& config_rules() {
  static const std::vector<Rule> rules{
      {{"LV201", "config-invalid", Severity::error, "whether the configuration can be evaluated",
        "A selector of the configuration means nothing, for example a broken regular expression.",
        "correct adapter_config.json"},
       nullptr},
      {{"LV202", "config-unknown-key", Severity::note, "the fields of adapter_config.json",
        "A field is unknown to PEFT 0.21.2, which ignores it even where it would change the "
        "result.",
        "check which tool wrote it; remove the field if it means nothing"},
       unknown_keys},
      {{"LV203", "rank-mismatch", Severity::error, "r and rank_pattern against the tensors' shapes",
        "The configuration and the tensors disagree about the rank, so the scaling is wrong too.",
        "restore the adapter_config.json that was saved with these tensors"},
       rank_disagrees},
      {{"LV204", "scaling-changed", Severity::error,
        "alpha, rank and rsLoRA against the scaling recorded in lora_manifest.json",
        "The configuration was edited after saving: every update is applied at another strength.",
        "restore lora_alpha, r, use_rslora and the patterns as recorded"},
       scaling_changed},
      {{"LV205", "target-entry-dead", Severity::warning, "target_modules against the base",
        "An entry selects nothing; it may be a typing error.", "correct or remove the entry"},
       dead_entries},
      {{"LV206", "modules-to-save-dead", Severity::warning, "modules_to_save against the base",
        "An entry selects nothing; a head that was meant to be saved may be missing.",
        "correct or remove the entry"},
       dead_saved_entries},
      {{"LV207", "pattern-dead", Severity::warning,
        "rank_pattern and alpha_pattern against the targeted modules",
        "A pattern selects nothing, so its modules have the default rank or alpha.",
        "correct or remove the pattern"},
       dead_patterns},
  };
  return rules;
}

}  // namespace lora::rules
