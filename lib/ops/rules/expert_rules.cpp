#include "ops/rules/grouping.h"
#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

using Names = std::vector<std::string>;

Report::About about(const Names& modules, std::optional<Severity> severity = {}) {
  return {.tensor = {}, .module = modules.front(), .hint = {}, .severity = severity};
}

std::string layout_of(const LoraModule& module) {
  return module.is_in_out ? "[experts, in, out]" : "[experts, out, in]";
}

void expert_layout(const Subject& subject, Report& report) {
  const auto release = peft_release(subject.adapter.config);
  Names ambiguous, open, decided, nameless;
  std::string layout, version_layout;
  for (const LoraModule& module : subject.adapter.modules) {
    if (module.kind != LayerKind::parameter) continue;
    if (subject.base != nullptr && !module.is_name_certain) nameless.push_back(module.module_path);
    if (module.experts <= 1) continue;
    if (module.is_layout_certain || (release && subject.base != nullptr)) {
      decided.push_back(module.base_name);
      layout = layout_of(module) + (module.is_layout_certain ? "" : ", as its version reads them");
    } else if (subject.base == nullptr && (release || module.a.shape[1] != module.b.shape[0])) {
      open.push_back(module.base_name);
    } else {
      ambiguous.push_back(module.base_name);
    }
  }
  const std::string written =
      release ? "PEFT " + *subject.adapter.config.peft_version : std::string("no peft_version");
  if (!ambiguous.empty())
    report.add("cannot tell how the experts of " + report.list(group_layers(ambiguous)) +
                   " are laid out: as many inputs as outputs, and " + written,
               about(ambiguous));
  if (!open.empty())
    report.add(counted(open.size(), "stack") + " of experts (" + report.list(group_layers(open)) +
                   "), " + written +
                   ": the base decides between [experts, in, out] and "
                   "[experts, out, in]",
               about(open, Severity::note));
  if (!decided.empty())
    report.add(counted(decided.size(), "stack") + " of experts stored " + layout + " (" + written +
                   "): " + report.list(group_layers(decided)),
               about(decided, Severity::note));
  if (!nameless.empty())
    report.add("keys do not say which parameter " + report.list(group_layers(nameless)) +
                   " adapt, and several have fitting shapes: taken in the order of registration",
               about(nameless, Severity::note));
}

}  // namespace

const std::vector<Rule>& expert_rules() {
  static const std::vector<Rule> rules{
      {{"LV314", "moe-layout-ambiguous", Severity::error,
        "factors on stacks of experts, peft_version and the base's parameters",
        "PEFT before 0.19 reads a stack as [experts, in, out], later ones as [experts, out, in]; "
        "read the wrong way the updates are scrambled (a note once it is decided).",
        "set peft_version in adapter_config.json to the version that trained it"},
       expert_layout},
  };
  return rules;
}

}  // namespace lora::rules
