#include <algorithm>

#include "lora/adapter/keys.h"
#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

std::string module_of(const std::string& base_name) {
  const auto dot = base_name.rfind('.');
  return dot == std::string::npos ? std::string() : base_name.substr(0, dot);
}

void unexpected(const Subject& subject, Report& report) {
  if (!subject.targets) return;
  std::vector<std::string> unknown;
  for (const LoraModule& module : subject.adapter.modules) {
    const auto& lora = subject.targets->lora;
    const bool is_target = std::any_of(lora.begin(), lora.end(), [&](const ModuleInfo& info) {
      return info.module_path == module.module_path;
    });
    if (is_target) continue;
    const bool exists =
        std::any_of(subject.base_modules.begin(), subject.base_modules.end(),
                    [&](const ModuleInfo& info) { return info.module_path == module.module_path; });
    // With tied weights PEFT adapts the head without naming it in target_modules.
    const Json* tying = subject.adapter.config.other.find("ensure_weight_tying");
    if (exists && module.module_path.ends_with("lm_head") && tying && tying->as_bool() == true)
      continue;
    unknown.push_back(module.module_path + (exists ? " (not targeted)" : " (not in the base)"));
  }
  if (unknown.empty()) return;
  report.add("the file has LoRA tensors for " + std::to_string(unknown.size()) +
                 " modules that configuration and base do not explain: " + join_some(unknown),
             {.tensor = {},
              .module = unknown.front().substr(0, unknown.front().find(' ')),
              .hint = {},
              .severity = {}});
}

void missing(const Subject& subject, Report& report) {
  if (!subject.targets) return;
  std::vector<std::string> absent;
  for (const ModuleInfo& info : subject.targets->lora) {
    if (subject.adapter.find(info.module_path) != nullptr) continue;
    const bool half = std::any_of(
        subject.adapter.problems.begin(), subject.adapter.problems.end(), [&](const auto& problem) {
          return problem.key.find("." + info.module_path + ".") != std::string::npos;
        });
    if (!half) absent.push_back(info.module_path);
  }
  for (const ModuleInfo& info : subject.targets->saved) {
    const std::string prefix = info.module_path + ".";
    const auto found = subject.adapter.replacements.lower_bound(prefix);
    if (found == subject.adapter.replacements.end() || !found->first.starts_with(prefix))
      absent.push_back(info.module_path + " (module to save)");
  }
  if (absent.empty()) return;
  const std::size_t expected = subject.targets->lora.size() + subject.targets->saved.size();
  report.add(std::to_string(absent.size()) + " of " + std::to_string(expected) +
                 " expected modules have no tensors: " + join_some(absent),
             {.tensor = {},
              .module = absent.front().substr(0, absent.front().find(' ')),
              .hint = {},
              .severity = {}});
}

void add_problems(const Subject& subject, Report& report,
                  std::initializer_list<KeyProblem::Kind> kinds) {
  for (const KeyProblem& problem : subject.adapter.problems)
    if (std::find(kinds.begin(), kinds.end(), problem.kind) != kinds.end())
      report.add(problem.message, {.tensor = problem.key,
                                   .module = parse_key(problem.key).module_path,
                                   .hint = {},
                                   .severity = {}});
}

void unpaired(const Subject& subject, Report& report) {
  add_problems(subject, report, {KeyProblem::Kind::unpaired, KeyProblem::Kind::bad_shape});
}

void duplicate(const Subject& subject, Report& report) {
  add_problems(subject, report, {KeyProblem::Kind::duplicate});
}

void wrapper_prefix(const Subject& subject, Report& report) {
  std::vector<std::string> wrapped;
  for (const std::string& key : subject.adapter.unclean_keys)
    if (!parse_key(key).wrappers.empty()) wrapped.push_back(key);
  if (wrapped.empty()) return;
  report.add(std::to_string(wrapped.size()) + " keys carry wrapper components (" +
                 join_some(parse_key(wrapped.front()).wrappers) +
                 "); PEFT would load this file as an adapter that does nothing",
             {.tensor = wrapped.front(), .module = {}, .hint = {}, .severity = {}});
}

void foreign_prefix(const Subject& subject, Report& report) {
  std::vector<std::string> bare;
  for (const std::string& key : subject.adapter.unclean_keys) {
    const ParsedKey parsed = parse_key(key);
    if (parsed.wrappers.empty() && !parsed.has_peft_prefix) bare.push_back(key);
  }
  if (bare.empty()) return;
  report.add(std::to_string(bare.size()) + " keys lack the prefix base_model.model.",
             {.tensor = bare.front(), .module = {}, .hint = {}, .severity = {}});
}

void adapter_name(const Subject& subject, Report& report) {
  std::vector<std::string> named;
  for (const std::string& key : subject.adapter.unclean_keys) {
    const ParsedKey parsed = parse_key(key);
    if (parsed.wrappers.empty() && parsed.has_peft_prefix && !parsed.adapter_name.empty())
      named.push_back(key);
  }
  if (named.empty()) return;
  report.add(std::to_string(named.size()) + " keys still carry the adapter name \"" +
                 parse_key(named.front()).adapter_name + "\"",
             {.tensor = named.front(), .module = {}, .hint = {}, .severity = {}});
}

void overwrites_base(const Subject& subject, Report& report) {
  add_problems(subject, report, {KeyProblem::Kind::unknown});
  if (subject.base == nullptr) return;
  for (const auto& [base_name, tensor] : subject.adapter.replacements)
    if (subject.base->find(base_name) == nullptr)
      report.add("the saved parameter " + base_name + " does not exist in the base",
                 {.tensor = base_name, .module = module_of(base_name), .hint = {}, .severity = {}});
}

void base_shape(const Subject& subject, Report& report) {
  if (subject.base == nullptr) return;
  for (const LoraModule& module : subject.adapter.modules) {
    const auto info = std::find_if(
        subject.base_modules.begin(), subject.base_modules.end(),
        [&](const ModuleInfo& candidate) { return candidate.module_path == module.module_path; });
    if (info == subject.base_modules.end() || module.a.shape.size() != 2 ||
        module.b.shape.size() != 2)
      continue;
    if (info->kind != LayerKind::linear && info->kind != LayerKind::conv1d &&
        info->kind != LayerKind::embedding)
      continue;
    if (module.a.shape[1] == info->in_features && module.b.shape[0] == info->out_features) continue;
    report.add("the adapter's update is [" + std::to_string(module.b.shape[0]) + ", " +
                   std::to_string(module.a.shape[1]) + "], the base's module is [" +
                   std::to_string(info->out_features) + ", " + std::to_string(info->in_features) +
                   "]",
               {.tensor = {}, .module = module.module_path, .hint = {}, .severity = {}});
  }
  for (const auto& [base_name, tensor] : subject.adapter.replacements) {
    const Tensor* original = subject.base->find(base_name);
    if (original != nullptr && original->shape != tensor.shape)
      report.add("the saved parameter " + base_name + " has shape " +
                     shape_to_string(tensor.shape) + ", the base's has " +
                     shape_to_string(original->shape),
                 {.tensor = base_name, .module = module_of(base_name), .hint = {}, .severity = {}});
  }
}

}  // namespace

const std::vector<Rule>& key_rules() {
  static const std::vector<Rule> rules{
      {{"LV301", "key-unexpected", Severity::error,
        "every adapted module against configuration and base",
        "The file adapts modules that the configuration does not target or the base does not have; "
        "PEFT drops such tensors without a word.",
        "give the base this adapter was trained on, or correct target_modules"},
       unexpected},
      {{"LV302", "key-missing", Severity::error, "every module the configuration targets",
        "Targeted modules have no tensors; PEFT leaves them without any update.",
        "save again from the live model or a complete checkpoint"},
       missing},
      {{"LV303", "key-unpaired", Severity::error, "the pairing and shapes of A and B",
        "A factor is alone, or the two factors of a module do not fit together.",
        "restore the file from the checkpoint it was saved from"},
       unpaired},
      {{"LV304", "key-duplicate", Severity::error, "names after removing prefixes",
        "Two tensors of the file mean the same parameter.", "save again so that one remains"},
       duplicate},
      {{"LV305", "key-wrapper-prefix", Severity::error, "components that wrappers add to names",
        "Names carry _orig_mod., module. or _fsdp_wrapped_module.; PEFT loads none of the tensors.",
        "rewrite it with clean names: lora save ADAPTER -o DIR"},
       wrapper_prefix},
      {{"LV306", "key-foreign-prefix", Severity::error, "the prefix of every name",
        "Names do not start with base_model.model., so PeftModel.from_pretrained loads none of "
        "them.",
        "rewrite it with clean names: lora save ADAPTER -o DIR"},
       foreign_prefix},
      {{"LV307", "key-adapter-name", Severity::note, "adapter names inside keys",
        "Keys carry an in-memory adapter name; PEFT accepts that by accident.",
        "rewrite it with clean names: lora save ADAPTER -o DIR"},
       adapter_name},
      {{"LV308", "key-overwrites-base", Severity::error,
        "tensors that are no LoRA factors against modules_to_save and bias",
        "The file would replace weights of the base that nobody declared.",
        "remove the tensor or declare its module in modules_to_save; until then treat it as "
        "hostile"},
       overwrites_base},
      {{"LV309", "base-shape-mismatch", Severity::error, "shapes of factors against the base",
        "The adapter was made for a base of other dimensions.",
        "give the base this adapter was trained on"},
       base_shape},
  };
  return rules;
}

}  // namespace lora::rules
