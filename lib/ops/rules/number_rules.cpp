#include <cmath>
#include <map>

#include "lora/base/parallel.h"
#include "lora/base/tensor_digest.h"
#include "ops/adapter_digest.h"
#include "ops/lineage.h"
#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

void non_finite(const Subject& subject, Report& report) {
  for (const auto& [key, statistics] : subject.tensors) {
    if (statistics.first_non_finite < 0) continue;
    report.add(
        std::to_string(statistics.nan_count) + " NaN and " + std::to_string(statistics.inf_count) +
            " infinite values, the first at element " + std::to_string(statistics.first_non_finite),
        {.tensor = key, .module = {}, .hint = {}, .severity = {}});
  }
}

bool adds_bias(const LoraModule& module) {
  return module.bias && !statistics_of(*module.bias).is_all_zero;
}

void no_op(const Subject& subject, Report& report) {
  std::vector<std::string> inert, directions;
  std::map<std::string, std::int64_t> reasons;
  for (std::size_t i = 0; i < subject.modules.size(); ++i) {
    const ModuleFigures& figures = subject.modules[i];
    const LoraModule& module = subject.adapter.modules[i];
    if (figures.update.norm != 0 || figures.a.first_non_finite >= 0 ||
        figures.b.first_non_finite >= 0 || adds_bias(module))
      continue;
    if (module.magnitude) {
      directions.push_back(module.module_path);
      continue;
    }
    inert.push_back(module.module_path);
    reasons[module.scaling == 0     ? "lora_alpha is 0"
            : figures.b.is_all_zero ? "B is zero"
            : figures.a.is_all_zero ? "A is zero"
                                    : "the products of A and B cancel"] += 1;
  }
  const std::string total = std::to_string(subject.modules.size()) + " modules ";
  if (!directions.empty())
    report.add(
        std::to_string(directions.size()) + " of " + total +
            "leave the direction of their weights as it is; only their DoRA magnitudes can "
            "have an effect: " +
            report.list(directions, 3),
        {.tensor = {}, .module = directions.front(), .hint = {}, .severity = Severity::note});
  if (inert.empty()) return;
  std::vector<std::string> texts;
  for (const auto& [reason, count] : reasons)
    texts.push_back(count == static_cast<std::int64_t>(inert.size())
                        ? reason
                        : reason + " in " + std::to_string(count));
  const bool all = inert.size() == subject.modules.size() && subject.adapter.replacements.empty() &&
                   subject.adapter.tokens.empty();
  const bool is_unscaled = reasons.size() == 1 && reasons.begin()->first == "lora_alpha is 0";
  report.add(
      std::to_string(inert.size()) + " of " + total + "have no effect (" + report.list(texts) +
          "): " + report.list(inert, 3),
      {.tensor = {},
       .module = inert.front(),
       .hint = is_unscaled ? "set lora_alpha to the value of the training configuration" : "",
       .severity = all ? Severity::error : Severity::warning});
}

// Looks for the record whose bytes a changed tensor now has: the two were exchanged. Every try
// hashes the tensor under another name, so only as much is tried as real adapters ask for.
class OwnerSearch {
 public:
  explicit OwnerSearch(const Manifest& manifest) {
    for (const auto& [key, record] : manifest.tensors)
      by_shape_[record.shape].emplace_back(&key, &record.digest);
  }

  /// Empty when there is none or it was not found within the limit.
  std::string owner_of(const std::string& key, const Tensor& tensor) {
    const auto same = by_shape_.find(tensor.shape);
    if (same == by_shape_.end()) return {};
    for (const auto& [other, digest] : same->second) {
      if (*other == key) continue;
      const std::size_t cost = kBytesPerTry + tensor.bytes.size();
      if (cost > left_) return {};
      left_ -= cost;
      if (tensor_digest(*other, tensor) == *digest) return *other;
    }
    return {};
  }

 private:
  static constexpr std::size_t kBytesPerTry = 256;
  std::map<std::vector<std::int64_t>, std::vector<std::pair<const std::string*, const Digest*>>>
      by_shape_;
  std::size_t left_ = std::size_t{1} << 30;
};

void values_changed(const Subject& subject, Report& report) {
  if (!subject.manifest) return;
  struct Pair {
    const std::string& key;
    const TensorRecord& record;
    const Tensor& tensor;
    bool is_equal = false;
  };
  std::vector<Pair> pairs;
  for (const auto& [key, record] : subject.manifest->tensors) {
    const auto found = subject.adapter.tensors.find(key);
    if (found != subject.adapter.tensors.end()) pairs.push_back({key, record, found->second});
  }
  parallel_for(pairs.size(), subject.threads, [&](std::size_t i) {
    pairs[i].is_equal = tensor_digest(pairs[i].key, pairs[i].tensor) == pairs[i].record.digest;
  });
  std::optional<OwnerSearch> search;
  for (const auto& [key, record, tensor, is_equal] : pairs) {
    if (is_equal) continue;
    if (!search) search.emplace(*subject.manifest);
    std::string message;
    if (std::string(to_string(tensor.dtype)) != record.dtype || tensor.shape != record.shape) {
      message = "is " + std::string(to_string(tensor.dtype)) + " " + shape_to_string(tensor.shape) +
                ", the record says " + record.dtype + " " + shape_to_string(record.shape);
    } else if (const std::string owner = search->owner_of(key, tensor); !owner.empty()) {
      message = "holds the values recorded for " + owner + ": tensors were exchanged";
    } else {
      message = "values differ from the record";
      const auto now = subject.tensors.find(key);
      if (now != subject.tensors.end())
        message +=
            " (mean now " + figure(now->second.mean) + ", recorded " + figure(record.mean) + ")";
    }
    report.add(key + " " + message, {.tensor = key, .module = {}, .hint = {}, .severity = {}});
  }
}

void set_changed(const Subject& subject, Report& report) {
  if (!subject.manifest) return;
  for (const auto& [key, record] : subject.manifest->tensors)
    if (!subject.adapter.tensors.contains(key))
      report.add("recorded tensor " + key + " is missing",
                 {.tensor = key, .module = {}, .hint = {}, .severity = {}});
  for (const auto& [key, tensor] : subject.adapter.tensors)
    if (!subject.manifest->tensors.contains(key))
      report.add("tensor " + key + " was not there when the adapter was recorded",
                 {.tensor = key, .module = {}, .hint = {}, .severity = {}});
}

// Tensors that changed since are LV403's; what they were is in the record.
void history_contradicted(const Subject& subject, Report& report) {
  if (!subject.manifest) return;
  const Digest now = adapter_digest(subject.adapter, subject.manifest->tensors);
  const std::vector<std::string> faults = lineage_faults(subject.manifest->history, now);
  if (faults.empty()) return;
  report.add("the history does not lead to this adapter: " + report.list(faults));
}

}  // namespace

const std::vector<Rule>& number_rules() {
  static const std::vector<Rule> rules{
      {{"LV401", "tensor-non-finite", Severity::error, "every value of every tensor",
        "NaN or infinite values spoil every output.", "go back to an earlier checkpoint"},
       non_finite},
      {{"LV402", "adapter-no-op", Severity::error, "the norm of every module's update",
        "The update is zero: the adapter changes nothing there (a warning when other modules "
        "work).",
        "check which parameters were trainable and how the adapter was saved, then train again"},
       no_op},
      {{"LV403", "tensor-changed", Severity::error,
        "digest of every tensor against lora_manifest.json",
        "The values are not the ones that were saved.", "restore the file as it was saved"},
       values_changed},
      {{"LV404", "tensor-set-changed", Severity::error,
        "the names of the tensors against lora_manifest.json",
        "Tensors were removed or added after saving.", "restore the file as it was saved"},
       set_changed},
      {{"LV413", "history-contradicted", Severity::error,
        "digests of inputs and results in the history of lora_manifest.json",
        "The operations that the record lists did not make this adapter: the record belongs to "
        "another one, or was changed.",
        "restore the folder as it was written, or remove lora_manifest.json and record the adapter "
        "anew with lora save"},
       history_contradicted},
  };
  return rules;
}

}  // namespace lora::rules
