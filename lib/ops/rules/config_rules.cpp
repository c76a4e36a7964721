#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <tuple>

#include "lora/adapter/keys.h"
#include "ops/rules/grouping.h"
#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

// PEFT 0.1 to 0.3; what loading does at run time; what other programs note down about themselves.
constexpr std::array<std::string_view, 4> kHarmless{"merge_weights", "runtime_config",
                                                    "transformers_version", "unsloth_version"};
// PEFT 0.1 to 0.3: which parts of a fused projection got factors.
constexpr std::array<std::string_view, 1> kChanging{"enable_lora"};

bool is_empty(const Json& value) {
  if (value.is_null() || value.as_bool() == false) return true;
  if (const auto* text = value.as_string()) return text->empty();
  if (const auto* array = value.as_array()) return array->empty();
  if (const auto* object = value.as_object()) return object->empty();
  return value.as_double() == 0.0;
}

template <typename Names>
bool contains(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string shortened(const Json& value) {
  constexpr std::size_t kShown = 40;
  std::string text = dump_json(value, {});
  return text.size() > kShown ? text.substr(0, kShown) + "..." : text;
}

void unknown_keys(const Subject& subject, Report& report) {
  std::vector<std::string> grave, slight;
  for (const std::string& name : subject.adapter.config.unknown_fields()) {
    const Json& value = *subject.adapter.config.other.find(name);
    const std::string text = name + "=" + shortened(value) + ": ";
    if (is_empty(value)) {
      slight.push_back(text + "switched off");
    } else if (contains(kHarmless, name)) {
      slight.push_back(text + "harmless");
    } else if (contains(kChanging, name)) {
      grave.push_back(text + "changes the result");
    } else {
      grave.push_back(text + "unknown, may change the result");
    }
  }
  if (!grave.empty())
    report.add("adapter_config.json has keys that PEFT 0.21.2 ignores and that are set (" +
               report.list(grave) + ")");
  if (!slight.empty())
    report.add(
        "adapter_config.json has keys that PEFT 0.21.2 does not know (" + report.list(slight) + ")",
        {.tensor = {}, .module = {}, .hint = {}, .severity = Severity::note});
}

void rank_disagrees(const Subject& subject, Report& report) {
  const PatternTable patterns(subject.adapter.config);
  std::map<std::pair<std::int64_t, std::int64_t>, std::vector<std::string>> differing;
  std::vector<std::string> others;
  std::string first;
  for (const KeyProblem& problem : subject.adapter.problems) {
    if (problem.kind != KeyProblem::Kind::rank_mismatch) continue;
    const std::string path = parse_key(problem.key).module_path;
    const LoraModule* module = subject.adapter.find(path);
    if (module == nullptr) {
      if (others.empty()) first = problem.key;
      others.push_back(problem.key + " " + problem.message);
    } else {
      differing[{module->rank, patterns.rank_of(pattern_path(*module))}].push_back(path);
    }
  }
  for (const auto& [ranks, modules] : differing)
    report.add(
        counted(modules.size(), "module") + (modules.size() == 1 ? " has" : " have") + " rank " +
            std::to_string(ranks.first) + ", expected " + std::to_string(ranks.second) +
            " from the configuration (r, rank_pattern): " + report.list(group_layers(modules)) +
            "; a corrected rank changes the scaling unless lora_alpha follows",
        {.tensor = {}, .module = modules.front(), .hint = {}, .severity = {}});
  if (!others.empty())
    report.add(
        report.list(others, 3),
        {.tensor = first, .module = parse_key(first).module_path, .hint = {}, .severity = {}});
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
  report.add(example + ", in " + counted(changed.size(), "module") + ": " +
                 report.list(group_layers(changed), 3),
             {.tensor = {}, .module = changed.front(), .hint = {}, .severity = {}});
}

// The values of s with what PEFT computes them from, and how many modules have each.
void scale_unproven(const Subject& subject, Report& report) {
  if (subject.manifest && !subject.manifest->scaling.empty()) return;
  const AdapterConfig& config = subject.adapter.config;
  const std::vector<LoraModule>& modules = subject.adapter.modules;
  if (modules.empty()) return;
  std::map<std::tuple<double, double, std::int64_t>, std::size_t> counts;
  for (const LoraModule& module : modules) ++counts[{module.scaling, module.alpha, module.rank}];
  std::vector<std::string> table;
  for (const auto& [values, count] : counts) {
    const auto& [scaling, alpha, rank] = values;
    table.push_back(figure(scaling) + " in " + counted(count, "module") + " (alpha " +
                    figure(alpha) + (config.use_rslora ? ", root of rank " : ", rank ") +
                    std::to_string(rank) + ")");
  }
  std::string message = "nothing proves the scaling: s = " + report.list(table);
  if (config.use_rslora) message += ", rsLoRA";
  // A file that was read has spellings; a configuration made in memory has none at all.
  const bool uses_default =
      std::any_of(modules.begin(), modules.end(),
                  [&](const LoraModule& module) { return module.alpha == config.alpha; });
  if (!config.spelling.empty() && config.spelling.find("lora_alpha") == nullptr && uses_default)
    message +=
        "; lora_alpha is absent, 8 is PEFT's default and the tool that trained may have "
        "meant another";
  report.add(std::move(message));
}

// PEFT takes any number. One that no training starts from is an edit, a slip or a unit mixed up.
constexpr double kLargestScaling = 1000;

void alpha_implausible(const Subject& subject, Report& report) {
  std::map<std::string, std::vector<std::string>> modules_of;
  for (const LoraModule& module : subject.adapter.modules) {
    // A module without any effect is for adapter-no-op.
    const bool is_inert = module.alpha == 0 && !module.magnitude && !module.bias;
    const std::string alpha = "alpha is " + figure(module.alpha);
    const std::string what =
        module.alpha < 0    ? alpha + ": the update is subtracted"
        : module.alpha == 0 ? alpha + ": the factors add nothing"
        : std::fabs(module.scaling) > kLargestScaling
            ? alpha + ": the factors are multiplied by " + figure(module.scaling)
            : "";
    if (!what.empty() && !is_inert) modules_of[what].push_back(module.module_path);
  }
  for (const auto& [what, modules] : modules_of)
    report.add(what + ", in " + counted(modules.size(), "module") + ": " +
                   report.list(group_layers(modules), 3),
               {.tensor = {}, .module = modules.front(), .hint = {}, .severity = {}});
}

void init_rewrites_base(const Subject& subject, Report& report) {
  const std::string init = base_changing_init(subject.adapter.config);
  if (init.empty()) return;
  std::string message = "init_lora_weights is \"" + init +
                        "\": this adapter belongs to a base that the initialisation modified; "
                        "merged or run as a plain LoRA it gives wrong weights";
  if (init.starts_with("pissa_niter_"))
    message += ", and its randomised SVD does not even repeat in PEFT";
  if (!changes_base_on_load(subject.adapter.config))
    message += "; PEFT itself leaves the modification out on reload";
  report.add(std::move(message));
}

}  // namespace

const std::vector<Rule>& config_rules() {
  static const std::vector<Rule> rules{
      {{"LV201", "config-invalid", Severity::error,
        "types, ranges, expressions and combinations of all fields, keys given twice",
        "PEFT refuses a value, or a selector of the configuration means nothing.",
        "correct adapter_config.json; lora repair ADAPTER -o DIR fills in what tensors prove"},
       nullptr},
      {{"LV202", "config-unknown-key", Severity::error, "the fields of adapter_config.json",
        "A field is unknown to PEFT 0.21.2, which ignores it although it may change the result (a "
        "note when it is switched off or known to be harmless).",
        "use the program that wrote it; remove the field only if it means nothing"},
       unknown_keys},
      {{"LV203", "rank-mismatch", Severity::error, "r and rank_pattern against the tensors' shapes",
        "The configuration and the tensors disagree about the rank, so the scaling is wrong too.",
        "restore the adapter_config.json saved with these tensors, or take the ranks from the "
        "tensors: lora repair ADAPTER -o DIR"},
       rank_disagrees},
      {{"LV204", "scaling-changed", Severity::error,
        "alpha, rank and rsLoRA against the scaling recorded in lora_manifest.json",
        "The configuration was edited after saving: every update is applied at another strength.",
        "restore lora_alpha, r, use_rslora and the patterns as recorded"},
       scaling_changed},
      {{"LV212", "init-rewrites-base", Severity::warning, "init_lora_weights",
        "PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA subtract their initial factors from the base.",
        "make it a plain LoRA: lora convert ADAPTER --init-adapter DIR -o PLAIN, or for PiSSA and "
        "OLoRA with --base BASE"},
       init_rewrites_base},
      {{"LV217", "scale-unproven", Severity::note,
        "the scaling of every module, and whether a record of it exists",
        "lora_alpha, use_rslora or a pattern could have been edited or lost without a trace.",
        "record it: lora save ADAPTER --base BASE -o DIR"},
       scale_unproven},
      {{"LV218", "alpha-implausible", Severity::warning,
        "lora_alpha and alpha_pattern, and the scaling that follows",
        "No training starts from such a number: it is negative, zero, or multiplies the factors by "
        "more than 1000. PEFT takes it.",
        "set lora_alpha and alpha_pattern to the values of the training configuration"},
       alpha_implausible},
  };
  return rules;
}

}  // namespace lora::rules
