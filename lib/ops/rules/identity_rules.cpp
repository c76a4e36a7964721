#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

Report::About by_proof(const Subject& subject) {
  return {.tensor = {},
          .module = {},
          .hint = {},
          .severity = subject.require_proof ? Severity::error : Severity::note};
}

std::string short_digest(const Digest& digest) { return digest.hex().substr(0, 12); }

void mismatch(const Subject& subject, Report& report) {
  if (!subject.manifest || !subject.manifest->base_root || !subject.base_now) return;
  if (subject.base_now->root == *subject.manifest->base_root) return;
  std::vector<std::string> different;
  for (const auto& [name, digest] : subject.manifest->base_tensors) {
    const auto now = subject.base_now->tensors.find(name);
    if (now == subject.base_now->tensors.end()) {
      different.push_back(name + " (missing)");
    } else if (now->second.digest != digest) {
      different.push_back(name);
    }
  }
  std::string message = "this is not the base the adapter was made for: root " +
                        short_digest(subject.base_now->root) + ", recorded " +
                        short_digest(*subject.manifest->base_root) + "; ";
  if (different.empty()) {
    message += "the targeted tensors are equal, others differ";
  } else {
    message += std::to_string(different.size()) + " of " +
               std::to_string(subject.manifest->base_tensors.size()) +
               " targeted tensors differ: " + join_some(different);
  }
  report.add(
      std::move(message),
      {.tensor = different.empty() ? "" : different.front().substr(0, different.front().find(' ')),
       .module = {},
       .hint = {},
       .severity = {}});
}

void unproven(const Subject& subject, Report& report) {
  if (subject.manifest && subject.manifest->base_root) return;
  const AdapterConfig& config = subject.adapter.config;
  std::string message = "nothing in these files proves which base the adapter was trained on";
  message +=
      " (named base: " +
      (config.base_model_name_or_path.value_or("").empty() ? std::string("none")
                                                           : *config.base_model_name_or_path) +
      ", revision: " + config.revision.value_or("none") + ")";
  report.add(std::move(message), by_proof(subject));
}

void lock_disagrees(const Subject& subject, Report& report) {
  if (!subject.base_recorded || !subject.base_now) return;
  const LockDifference difference = compare(*subject.base_recorded, *subject.base_now);
  if (difference.is_empty()) return;
  std::vector<std::string> names = difference.changed;
  for (const std::string& name : difference.missing) names.push_back(name + " (missing)");
  for (const std::string& name : difference.added) names.push_back(name + " (added)");
  report.add("the base's bytes are not those of its base.lock.json: " + join_some(names),
             {.tensor = names.front().substr(0, names.front().find(' ')),
              .module = {},
              .hint = {},
              .severity = {}});
}

void name_missing(const Subject& subject, Report& report) {
  if (!subject.adapter.config.base_model_name_or_path.value_or("").empty()) return;
  if (subject.manifest && subject.manifest->base_root) return;
  report.add("adapter_config.json names no base", by_proof(subject));
}

void revision_missing(const Subject& subject, Report& report) {
  const AdapterConfig& config = subject.adapter.config;
  const std::string name = config.base_model_name_or_path.value_or("");
  // A hub id is "organisation/model": one slash, no path-like start.
  const bool is_hub_name = name.find('/') != std::string::npos &&
                           name.find('/') == name.rfind('/') && name.front() != '/' &&
                           name.front() != '.';
  if (!is_hub_name || config.revision || (subject.manifest && subject.manifest->base_root)) return;
  report.add("the revision of " + name + " is not recorded; a later upload under that name would " +
                 "be taken without a word",
             by_proof(subject));
}

}  // namespace

const std::vector<Rule>& identity_rules() {
  static const std::vector<Rule> rules{
      {{"LV501", "base-mismatch", Severity::error,
        "the base's digests against those in lora_manifest.json",
        "The adapter's update would be added to weights it was not trained on.",
        "give the recorded base"},
       mismatch},
      {{"LV502", "base-unproven", Severity::note, "whether a record of the base exists",
        "Names and shapes may fit, but nothing ties this adapter to one base (an error with "
        "--require-proof).",
        "record it once: lora save ADAPTER --base BASE -o DIR"},
       unproven},
      {{"LV503", "base-modified", Severity::error, "the base's bytes against its base.lock.json",
        "The base checkpoint was changed after it was locked.",
        "restore the base, or make it anew with lora init-base"},
       lock_disagrees},
      {{"LV504", "base-name-missing", Severity::note, "base_model_name_or_path",
        "Others cannot find the base by this adapter's configuration.",
        "record the base: lora save ADAPTER --base BASE -o DIR"},
       name_missing},
      {{"LV505", "base-revision-missing", Severity::note, "revision",
        "The named base may change under its name.",
        "record the base: lora save ADAPTER --base BASE -o DIR"},
       revision_missing},
  };
  return rules;
}

}  // namespace lora::rules
