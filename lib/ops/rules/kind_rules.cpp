#include <algorithm>

#include "ops/rules/grouping.h"
#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

using Names = std::vector<std::string>;

Report::About about(const Names& modules, std::optional<Severity> severity = {}) {
  return {.tensor = {}, .module = modules.front(), .hint = {}, .severity = severity};
}

void dora_incomplete(const Subject& subject, Report& report) {
  const Adapter& adapter = subject.adapter;
  Names without, with;
  for (const LoraModule& module : adapter.modules) {
    // A magnitude of the wrong shape is in the file and reported as such.
    const std::string key =
        std::string(kPeftPrefix) + module.module_path + ".lora_magnitude_vector";
    (module.magnitude || adapter.tensors.contains(key) ? with : without)
        .push_back(module.module_path);
  }
  if (adapter.config.use_dora && !without.empty()) {
    report.add("use_dora is true and " + std::to_string(without.size()) + " of " +
                   counted(adapter.modules.size(), "module") +
                   " have no lora_magnitude_vector: " + report.list(group_layers(without)),
               about(without));
  } else if (!adapter.config.use_dora && !with.empty()) {
    report.add(counted(with.size(), "module") +
                   " have a lora_magnitude_vector and use_dora is false (" +
                   report.list(group_layers(with)) +
                   "): a plain merge would ignore DoRA, and so would PEFT",
               about(with));
  }
}

// PEFT makes biases of lora_B for these kinds and refuses the others.
bool takes_lora_bias(const LoraModule& module) {
  return module.kind == LayerKind::linear || module.kind == LayerKind::conv1d ||
         module.kind == LayerKind::convolution;
}

void lora_bias_incomplete(const Subject& subject, Report& report) {
  const Adapter& adapter = subject.adapter;
  Names without, with;
  for (const LoraModule& module : adapter.modules) {
    if (!takes_lora_bias(module) || !module.tied_to.empty()) continue;
    const std::string key = std::string(kPeftPrefix) + module.module_path + ".lora_B.bias";
    (module.bias || adapter.tensors.contains(key) ? with : without).push_back(module.module_path);
  }
  if (adapter.config.lora_bias && !without.empty()) {
    report.add("lora_bias is true and " + std::to_string(without.size()) + " of " +
                   counted(with.size() + without.size(), "module") +
                   " have no lora_B.bias, for which PEFT takes zeros: " +
                   report.list(group_layers(without)),
               about(without));
  } else if (!adapter.config.lora_bias && !with.empty()) {
    report.add(counted(with.size(), "module") + (with.size() == 1 ? " has" : " have") +
                   " a lora_B.bias and lora_bias is false, so PEFT drops it: " +
                   report.list(group_layers(with)),
               about(with));
  }
}

void doubled_projection(const Subject& subject, Report& report) {
  Names projections;
  double times = 1;
  for (const LoraModule& module : subject.adapter.modules)
    if (module.module_path.ends_with(".base_layer.out_proj")) {
      projections.push_back(module.module_path);
      times = module.times;
    }
  if (projections.empty()) return;
  constexpr std::pair<int, int> kLastKnown{0, 21};
  const auto release = peft_release(subject.adapter.config);
  const bool is_decided = release && *release <= kLastKnown;
  const std::string writer =
      release ? "written by PEFT " + *subject.adapter.config.peft_version
              : "written by PEFT before 0.18 or another program (no peft_version)";
  report.add(counted(projections.size(), "output projection") + " of nn.MultiheadAttention, " +
                 writer +
                 (is_decided ? ", which adds this update twice; factor "
                             : ": PEFT 0.15 to 0.21 add this update twice; assuming factor ") +
                 figure(times) + ": " + report.list(group_layers(projections), 3),
             about(projections, is_decided ? Severity::note : Severity::warning));
}

}  // namespace

const std::vector<Rule>& kind_rules() {
  static const std::vector<Rule> rules{
      {{"LV312", "dora-incomplete", Severity::error,
        "use_dora against the magnitude vectors of all modules",
        "Magnitudes are missing, or present and switched off; either way another function is "
        "computed than the trained one.",
        "restore the tensors from the checkpoint: lora save CHECKPOINT -o DIR; or set use_dora as "
        "it was in training"},
       dora_incomplete},
      {{"LV313", "mha-out-proj-doubled", Severity::warning,
        "output projections of nn.MultiheadAttention and peft_version",
        "PEFT adds the update of out_proj twice, in training too (a note when the version says so, "
        "a warning when it is unknown).",
        "state the program that trained it: set peft_version in adapter_config.json"},
       doubled_projection},
      {{"LV319", "lora-bias-incomplete", Severity::error,
        "lora_bias against the biases of lora_B of all modules",
        "Biases of lora_B are missing, and PEFT takes zeros, or present and switched off, and PEFT "
        "drops them; either way another function is computed than the trained one.",
        "restore the tensors from the checkpoint: lora save CHECKPOINT -o DIR; or set lora_bias as "
        "the tensors say: lora repair ADAPTER -o DIR"},
       lora_bias_incomplete},
  };
  return rules;
}

}  // namespace lora::rules
