#include <algorithm>
#include <initializer_list>

#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

Report::About by_proof(const Subject& subject) {
  return {.tensor = {},
          .module = {},
          .hint = {},
          .severity = subject.require_proof ? Severity::error : Severity::note};
}

// Entries may read "NAME (missing)".
Report::About about_tensor(const std::vector<std::string>& names) {
  return {.tensor = names.empty() ? "" : names.front().substr(0, names.front().find(' ')),
          .module = {},
          .hint = {},
          .severity = {}};
}

std::string short_digest(const Digest& digest) { return digest.hex().substr(0, 12); }

// Targeted tensors whose digest is not the recorded one, as far as they were hashed.
std::vector<std::string> different_tensors(const Manifest& manifest, const BaseIdentity& identity,
                                           const Checkpoint& base) {
  std::vector<std::string> different;
  for (const auto& [name, digest] : manifest.base_tensors) {
    const auto now = identity.hashed.find(name);
    if (!base.tensors.contains(name)) {
      different.push_back(name + " (missing)");
    } else if (now != identity.hashed.end() && now->second != digest) {
      different.push_back(name);
    }
  }
  return different;
}

void mismatch(const Subject& subject, Report& report) {
  if (!subject.manifest || !subject.manifest->base_root || !subject.base_identity) return;
  const Manifest& manifest = *subject.manifest;
  const BaseIdentity& identity = *subject.base_identity;
  const auto different = different_tensors(manifest, identity, *subject.base);
  const bool is_other_root = identity.root && *identity.root != *manifest.base_root;
  if (different.empty() && !is_other_root) return;
  std::string message = "this is not the base the adapter was made for: ";
  if (identity.root)
    message += "root " + short_digest(*identity.root) +
               (identity.is_whole ? "" : " (by its base.lock.json)") + ", recorded " +
               short_digest(*manifest.base_root) + "; ";
  if (different.empty()) {
    message += "the targeted tensors are equal, others differ";
  } else {
    message += std::to_string(different.size()) + " of " +
               std::to_string(manifest.base_tensors.size()) +
               " targeted tensors differ: " + report.list(different);
  }
  report.add(std::move(message), about_tensor(different));
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
  if (!subject.base_identity || subject.base_identity->against_lock.empty()) return;
  const std::vector<std::string>& names = subject.base_identity->against_lock;
  report.add("the base's tensors are not those of its base.lock.json: " + report.list(names),
             about_tensor(names));
}

// A path says nothing to anyone else: absolute, of this folder, or of a temporary one.
bool is_local_path(const std::string& name) {
  return name.starts_with('/') || name.starts_with('.') || name.starts_with('~') ||
         name.find('\\') != std::string::npos || (name.size() > 2 && name[1] == ':') ||
         std::count(name.begin(), name.end(), '/') > 1;
}

void name_missing(const Subject& subject, Report& report) {
  const std::string name = subject.adapter.config.base_model_name_or_path.value_or("");
  if (subject.manifest && subject.manifest->base_root) return;
  if (name.empty()) {
    report.add("adapter_config.json names no base", by_proof(subject));
  } else if (is_local_path(name)) {
    const bool is_temporary =
        name.starts_with("/tmp/") || name.starts_with("/var/tmp/") || name.starts_with("/dev/shm/");
    report.add("adapter_config.json names the base by a " +
                   std::string(is_temporary ? "temporary" : "local") + " path, " + name +
                   ", which others cannot find",
               by_proof(subject));
  }
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

void quantised(const Subject& subject, Report& report) {
  if (subject.base == nullptr || !subject.base->config) return;
  const std::string& method = subject.base->config->quantization;
  if (method.empty()) return;
  report.add("the base is quantised (" + method +
             "): the update was trained against, or is added "
             "to, weights that were rounded");
}

void report_differences(const Subject& subject, Report& report,
                        std::initializer_list<BaseDifference::Subject> wanted,
                        std::optional<Severity> certain, std::optional<Severity> otherwise) {
  for (const BaseDifference& difference : subject.evidence.differing)
    if (std::find(wanted.begin(), wanted.end(), difference.subject) != wanted.end())
      report.add(difference.message, {.tensor = {},
                                      .module = {},
                                      .hint = {},
                                      .severity = difference.is_certain ? certain : otherwise});
}

// A name proves nothing either way: the same weights lie under several.
void name_differs(const Subject& subject, Report& report) {
  const bool is_proven = subject.base_identity && subject.manifest && subject.manifest->base_root;
  report_differences(
      subject, report, {BaseDifference::Subject::name, BaseDifference::Subject::revision},
      std::nullopt, subject.require_proof && !is_proven ? Severity::error : Severity::note);
}

void tokenizer_differs(const Subject& subject, Report& report) {
  report_differences(subject, report, {BaseDifference::Subject::tokenizer}, Severity::warning,
                     Severity::note);
}

void chat_template_differs(const Subject& subject, Report& report) {
  report_differences(subject, report, {BaseDifference::Subject::chat_template}, Severity::note,
                     Severity::note);
}

void architecture_differs(const Subject& subject, Report& report) {
  report_differences(subject, report, {BaseDifference::Subject::architecture}, Severity::error,
                     Severity::warning);
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
        "The base checkpoint was changed after it was locked. Bytes are compared where they were "
        "hashed: all of them with --full.",
        "restore the base, or make it anew with lora init-base"},
       lock_disagrees},
      {{"LV504", "base-name-missing", Severity::note, "base_model_name_or_path",
        "Others cannot find the base by this adapter's configuration: it names none, or a local "
        "path (an error with --require-proof).",
        "record the base: lora save ADAPTER --base BASE -o DIR"},
       name_missing},
      {{"LV505", "base-revision-missing", Severity::note, "revision",
        "The named base may change under its name (an error with --require-proof).",
        "record the base: lora save ADAPTER --base BASE -o DIR"},
       revision_missing},
      {{"LV506", "base-quantised", Severity::note, "quantization_config of the base",
        "Merging into a quantised base and quantising again can lose the update.",
        "merge into the full-precision base"},
       quantised},
      {{"LV507", "base-name-differs", Severity::note,
        "base_model_name_or_path and revision against the name of the base in its cache or in "
        "config.json",
        "The adapter names another base than the given one (an error with --require-proof where no "
        "record settles it).",
        "give the base that the adapter names, or record this one: lora save ADAPTER --base BASE "
        "-o DIR"},
       name_differs},
      {{"LV508", "tokenizer-differs", Severity::note,
        "tokenizer.json of the adapter's folder, or the digest recorded in lora_manifest.json, "
        "against the base's",
        "Text becomes other token ids than in training: added tokens are a note, tokens with "
        "another id a warning.",
        "use the tokenizer that lies beside the adapter"},
       tokenizer_differs},
      {{"LV509", "chat-template-differs", Severity::note,
        "the chat template of the adapter's folder, or the digest recorded in lora_manifest.json, "
        "against the base's",
        "Conversations are laid out otherwise than in training, or than the base expects.",
        "use the chat template that the adapter was trained with"},
       chat_template_differs},
      {{"LV510", "base-architecture-differs", Severity::warning,
        "auto_mapping, task_type and the number of layers against the base",
        "The adapter was made for a model of another family or size (an error where the layers "
        "cannot fit).",
        "give the base this adapter was trained on"},
       architecture_differs},
  };
  return rules;
}

}  // namespace lora::rules
