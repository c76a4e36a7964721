#include <algorithm>
#include <map>
#include <set>

#include "ops/rules/grouping.h"
#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

void fan_in_fan_out(const Subject& subject, Report& report) {
  const bool flag = subject.adapter.config.fan_in_fan_out;
  std::vector<std::string> contradicting;
  for (const LoraModule& module : subject.adapter.modules)
    for (const ModuleInfo& info : subject.base_modules) {
      if (info.module_path != module.module_path) continue;
      if ((info.kind == LayerKind::conv1d && !flag) || (info.kind == LayerKind::linear && flag))
        contradicting.push_back(module.module_path);
    }
  if (contradicting.empty()) return;
  report.add("fan_in_fan_out is " + std::string(flag ? "true" : "false") + " and " +
                 counted(contradicting.size(), "module") + " of the base store" +
                 (contradicting.size() == 1 ? "s" : "") + " weights the other way (" +
                 report.list(group_layers(contradicting), 3) +
                 "); the flag is ignored, orientation is decided per module",
             {.tensor = {}, .module = contradicting.front(), .hint = {}, .severity = {}});
}

void batch_norm_stats(const Subject& subject, Report& report) {
  if (subject.base == nullptr) return;
  std::vector<std::string> uncovered;
  for (const auto& [name, tensor] : subject.base->tensors) {
    constexpr std::string_view statistic = ".running_mean";
    if (!name.ends_with(statistic)) continue;
    if (!subject.adapter.replacements.contains(name))
      uncovered.push_back(name.substr(0, name.size() - statistic.size()));
  }
  if (uncovered.empty()) return;
  report.add("the base has " + counted(uncovered.size(), "batch-norm layer") +
                 " whose running statistics are not in the adapter: " +
                 report.list(group_layers(uncovered)) +
                 "; training changes them unless it froze "
                 "them",
             {.tensor = {}, .module = uncovered.front(), .hint = {}, .severity = {}});
}

void layer_replication(const Subject& subject, Report& report) {
  const Json* field = subject.adapter.config.other.find("layer_replication");
  const JsonArray* blocks = field == nullptr ? nullptr : field->as_array();
  if (blocks == nullptr || blocks->empty()) return;
  std::int64_t in_base = -1;
  if (subject.base != nullptr)
    for (const auto& [name, tensor] : subject.base->tensors)
      in_base = std::max(in_base, layer_of(name) + 1);
  std::int64_t layers = 0;
  bool is_outside = false;
  for (const Json& block : *blocks) {
    const JsonArray* ends = block.as_array();
    if (ends == nullptr || ends->size() != 2) continue;
    const std::int64_t begin = (*ends)[0].as_int().value_or(0);
    const std::int64_t end = (*ends)[1].as_int().value_or(0);
    layers += std::max<std::int64_t>(0, end - begin);
    is_outside = is_outside || end <= begin || (in_base > 0 && end > in_base);
  }
  const std::string stack = "layer_replication " + dump_json(*field, {});
  if (is_outside) {
    report.add(stack + " names layers that the base of " + std::to_string(in_base) +
                   " layers does not have, or an empty block",
               {.tensor = {},
                .module = {},
                .hint = "correct layer_replication or give the recorded base",
                .severity = Severity::error});
    return;
  }
  std::string message = stack + " builds a stack of " + std::to_string(layers) + " layers";
  if (in_base > 0) message += " from " + std::to_string(in_base);
  report.add(message + ": keys index the replicated stack, whose layers share base weights");
}

}  // namespace

const std::vector<Rule>& layer_rules() {
  static const std::vector<Rule> rules{
      {{"LV213", "fan-in-fan-out-untrusted", Severity::note,
        "fan_in_fan_out against the layers of the base",
        "PEFT stores whatever the last module it injected needed; the flag proves nothing.",
        "nothing to do: lora decides by module; PEFT does too"},
       fan_in_fan_out},
      {{"LV215", "batch-norm-stats", Severity::warning,
        "running statistics of the base against modules_to_save",
        "Running statistics that training changed are not part of the adapter.",
        "put the batch-norm modules into modules_to_save and train again"},
       batch_norm_stats},
      {{"LV216", "layer-replication", Severity::note, "layer_replication against the base's layers",
        "Keys index the replicated stack; PEFT merges every copy into the one shared weight, which "
        "is wrong (an error when the blocks do not fit the base).",
        "write the expanded model with separate weights before merging"},
       layer_replication},
  };
  return rules;
}

}  // namespace lora::rules
