#include <algorithm>

#include "lora/base/tensor.h"
#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

// Above it, nothing worth a line was lost.
constexpr double kFullSurvival = 0.999;

std::string number(std::int64_t value) { return std::to_string(value); }

std::string position(const MergedTensor& tensor) {
  std::vector<std::int64_t> index(tensor.shape.size());
  std::int64_t rest = tensor.first_outside;
  for (std::size_t i = index.size(); i-- > 0;) {
    index[i] = rest % tensor.shape[i];
    rest /= tensor.shape[i];
  }
  return shape_to_string(index);
}

std::string describe(const MergedTensor& tensor) {
  if (tensor.first_outside < 0) return tensor.base_name;
  return tensor.base_name + " (" + number(tensor.outside) + " of " + number(tensor.elements) +
         " elements, first at " + position(tensor) + ": found " + figure(tensor.found) +
         ", expected " + figure(tensor.expected) + ")";
}

std::vector<const MergedTensor*> select(const Subject& subject,
                                        bool (*wanted)(const MergedTensor&)) {
  std::vector<const MergedTensor*> found;
  if (!subject.merged) return found;
  for (const MergedTensor& tensor : subject.merged->tensors)
    if (wanted(tensor)) found.push_back(&tensor);
  return found;
}

std::vector<std::string> described(const std::vector<const MergedTensor*>& tensors) {
  std::vector<std::string> texts;
  for (const MergedTensor* tensor : tensors) texts.push_back(describe(*tensor));
  return texts;
}

Report::About about(const MergedTensor& tensor) {
  return {.tensor = tensor.base_name, .module = tensor.module_path, .hint = {}, .severity = {}};
}

bool is_updated(const MergedTensor& tensor) {
  return !tensor.module_path.empty() && !tensor.is_from_adapter;
}

void not_reproduced(const Subject& subject, Report& report) {
  const auto unknown = select(
      subject, [](const MergedTensor& tensor) { return tensor.proof == MergeProof::not_replayed; });
  if (!unknown.empty()) {
    Report::About first = about(*unknown.front());
    first.severity = Severity::note;
    report.add(number(static_cast<std::int64_t>(unknown.size())) +
                   " tensors cannot be replayed, the first is " + unknown.front()->base_name +
                   ": " + unknown.front()->note,
               first);
  }
  const auto different = select(subject, [](const MergedTensor& tensor) {
    return tensor.proof == MergeProof::differs && is_updated(tensor);
  });
  if (different.empty()) return;
  const auto updated = select(subject, is_updated);
  report.add(number(static_cast<std::int64_t>(different.size())) + " of " +
                 number(static_cast<std::int64_t>(updated.size())) +
                 " updated tensors are not base + adapter: " + report.list(described(different), 3),
             about(*different.front()));
}

void output_incomplete(const Subject& subject, Report& report) {
  if (!subject.merged) return;
  const MergedReport& merged = *subject.merged;
  if (!merged.problem.empty() && !merged.is_index_problem) report.add(merged.problem);
  std::vector<std::string> missing;
  for (const MergedTensor* tensor : select(subject, [](const MergedTensor& candidate) {
         return candidate.proof == MergeProof::missing;
       }))
    missing.push_back(tensor->base_name + (tensor->note.empty() ? "" : " (" + tensor->note + ")"));
  if (!missing.empty())
    report.add(number(static_cast<std::int64_t>(missing.size())) +
                   " tensors are missing or of another shape: " + report.list(missing),
               {.tensor = missing.front().substr(0, missing.front().find(' ')),
                .module = {},
                .hint = {},
                .severity = {}});
  if (!merged.extra.empty())
    report.add(
        number(static_cast<std::int64_t>(merged.extra.size())) +
            " tensors are neither the base's nor the adapter's: " + report.list(merged.extra),
        {.tensor = merged.extra.front(), .module = {}, .hint = {}, .severity = {}});
  if (!merged.left_out.empty())
    report.add(number(static_cast<std::int64_t>(merged.left_out.size())) +
                   " tensors of the base have no place in this class of model: " +
                   report.list(merged.left_out),
               {.tensor = {}, .module = {}, .hint = "nothing", .severity = Severity::note});
}

void adapter_keys(const Subject& subject, Report& report) {
  if (!subject.merged) return;
  const MergedReport& merged = *subject.merged;
  if (!merged.adapter_keys.empty())
    report.add(
        number(static_cast<std::int64_t>(merged.adapter_keys.size())) +
            " names in the merged checkpoint are an adapter's: " + report.list(merged.adapter_keys),
        {.tensor = merged.adapter_keys.front(), .module = {}, .hint = {}, .severity = {}});
  if (merged.has_adapter_config)
    report.add(
        "adapter_config.json is in the merged directory: loaders will apply the adapter "
        "again, or take the directory for an adapter");
}

void saved_modules_dropped(const Subject& subject, Report& report) {
  for (const MergedTensor* tensor : select(subject, [](const MergedTensor& candidate) {
         return candidate.is_from_adapter && candidate.proof == MergeProof::differs;
       }))
    report.add(tensor->holds_base ? "the adapter's own values of " + tensor->base_name +
                                        " were dropped: the base's are there"
                                  : "does not hold the adapter's own values: " + describe(*tensor),
               about(*tensor));
}

void index_size(const Subject& subject, Report& report) {
  if (!subject.merged) return;
  const MergedReport& merged = *subject.merged;
  if (merged.is_index_problem) report.add(merged.problem);
  if (merged.total_size)
    report.add("the index says total_size " + *merged.total_size + ", its tensors have " +
               std::to_string(merged.total_bytes) + " bytes");
}

void rounding_loss(const Subject& subject, Report& report) {
  if (!subject.merged || !subject.merged->has_update) return;
  const MergedReport& merged = *subject.merged;
  if (!merged.is_reproduced() || merged.survived >= kFullSurvival) return;
  auto updated = select(subject, [](const MergedTensor& tensor) {
    return is_updated(tensor) && tensor.fitted.has_value();
  });
  if (updated.empty()) return;  // every update is zero: nothing to lose
  std::stable_sort(updated.begin(), updated.end(),
                   [](const auto* a, const auto* b) { return a->survived < b->survived; });
  std::vector<std::string> worst;
  for (const MergedTensor* tensor : updated)
    worst.push_back(tensor->base_name + " " + figure(100 * tensor->survived) + " %");
  const bool is_lossy = is_lossy_merge(merged.survived, merged.cosine);
  report.add(figure(100 * merged.survived) +
                 " % of the update's energy is in weights that changed "
                 "at all (" +
                 figure(100 * merged.changed) +
                 " % of them did; cosine of found and "
                 "intended change " +
                 figure(merged.cosine) + "), least in " + report.list(worst, 3),
             {.tensor = updated.front()->base_name,
              .module = updated.front()->module_path,
              .hint = is_lossy ? "" : "nothing, or merge into F32",
              .severity = is_lossy ? Severity::warning : Severity::note});
}

void applied_otherwise(const Subject& subject, Report& report) {
  if (!subject.merged) return;
  for (const MergeExplanation& explanation : subject.merged->explanations)
    report.add(explanation.text);
}

void touched_others(const Subject& subject, Report& report) {
  if (!subject.merged) return;
  const auto different = select(subject, [](const MergedTensor& tensor) {
    return tensor.proof == MergeProof::differs && !is_updated(tensor) && !tensor.is_from_adapter;
  });
  if (!different.empty())
    report.add(number(static_cast<std::int64_t>(different.size())) +
                   " tensors that the adapter does not touch differ from the base: " +
                   report.list(described(different), 3),
               about(*different.front()));
  for (const std::string& remark : subject.merged->shared)
    report.add(remark, {.tensor = {},
                        .module = {},
                        .hint = "untie the head before merging: tie_word_embeddings false and a "
                                "matrix of its own",
                        .severity = Severity::warning});
}

void record_differs(const Subject& subject, Report& report) {
  if (!subject.merged) return;
  for (const std::string& fault : subject.merged->record) report.add("lora_merge.json: " + fault);
}

}  // namespace

const std::vector<Rule>& merged_rules() {
  static const std::vector<Rule> rules{
      {{"LV701", "merge-not-reproduced", Severity::error,
        "every updated tensor of the merged checkpoint against a replay of the merge (--merged)",
        "The merged weights are not base + adapter: neither bit for bit nor within one ulp.",
        "merge again from this base and this adapter"},
       not_reproduced},
      {{"LV702", "merge-output-incomplete", Severity::error,
        "names and shapes of the merged checkpoint against base and adapter",
        "The checkpoint was written only in part, or holds what neither of its sources has.",
        "merge again with all weights in memory, and save with save_pretrained"},
       output_incomplete},
      {{"LV703", "merge-output-adapter-keys", Severity::error,
        "names in the merged checkpoint, and an adapter_config.json beside it",
        "The wrapped model was saved instead of the merged one.",
        "save what merge_and_unload returns, into an empty directory"},
       adapter_keys},
      {{"LV704", "merge-saved-modules-dropped", Severity::error,
        "modules_to_save, biases, saved embeddings and trainable tokens in the merged checkpoint",
        "What the adapter carries besides its factors did not reach the merged model.",
        "merge with PEFT's merge_and_unload, or copy these tensors"},
       saved_modules_dropped},
      {{"LV705", "merge-index-size", Severity::error,
        "total_size and weight_map of the index of a sharded checkpoint",
        "The index does not describe its shards; loaders that trust it fail or load in part.",
        "write the checkpoint again, or correct the index"},
       index_size},
      {{"LV706", "merge-rounding-loss", Severity::note,
        "the share of the update that is left after rounding into the merged dtype; a warning "
        "below 50 % of its energy or a cosine of 0.71 with what was meant",
        "Small updates vanish in 16 bits: the merged model answers less like base + adapter.",
        "merge into F32, or keep the adapter apart"},
       rounding_loss},
      {{"LV707", "merge-applied-otherwise", Severity::error,
        "other ways to have merged: not at all, twice, subtracted, another scale, transposed, "
        "another adapter, another base",
        "The checkpoint is a merge, but not this one.",
        "merge again: this base, this adapter, once"},
       applied_otherwise},
      {{"LV708", "merge-touched-others", Severity::error,
        "tensors of the merged checkpoint that the adapter does not touch, and tied matrices",
        "Something besides the adapter changed the model; a warning where PEFT's merge of tied "
        "embeddings does it.",
        "merge again from this base"},
       touched_others},
      {{"LV709", "merge-record-differs", Severity::warning,
        "lora_merge.json beside the merged checkpoint, against adapter, base and weights",
        "The record is of another merge, or the weights were changed after it was written.",
        "give the adapters and the base of the record, or merge again"},
       record_differs},
  };
  return rules;
}

}  // namespace lora::rules
