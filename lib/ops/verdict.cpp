#include "ops/verdict.h"

#include <algorithm>
#include <set>

#include "ops/rules/rule.h"

namespace lora {
namespace {

bool has_recorded_root(const std::optional<Manifest>& manifest) {
  return manifest && manifest->base_root;
}

bool is_recorded_base(const BaseIdentity* identity, const std::optional<Manifest>& manifest) {
  return identity != nullptr && has_recorded_root(manifest) && identity->root &&
         *identity->root == *manifest->base_root;
}

// How many tensors were hashed, and what stands for the others.
std::string how_hashed(const BaseIdentity& identity, std::size_t base_tensors) {
  const std::string hashed = std::to_string(identity.hashed.size());
  if (identity.is_whole) return "all " + hashed + " tensors hashed";
  return hashed + " targeted tensors hashed, base.lock.json vouches for the other " +
         std::to_string(base_tensors - std::min(base_tensors, identity.hashed.size()));
}

std::string count_text(std::uint64_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

std::uint64_t errors_in(const Findings& findings) { return count_of(findings, Severity::error); }

std::string reason_of_errors(const Findings& findings) {
  std::set<std::string> ids;
  for (const Finding& finding : findings)
    if (finding.severity == Severity::error) ids.insert(finding.rule);
  std::vector<std::string> rules;
  for (const std::string& id : ids)
    rules.push_back(id + " " + std::string(rules::rule_by_id(id).info.name));
  return count_text(errors_in(findings), "error") + ": " + rules::join_some(rules);
}

std::string reason_of_plausible(const BaseIdentity* identity, const BaseEvidence& evidence,
                                const VerifyReport& report) {
  const std::string fits =
      identity == nullptr ? "; no base was given"
      : evidence.agreeing.empty()
          ? "; names and shapes fit the base"
          : "; names, shapes, " + rules::join_some(evidence.agreeing, 8) + " fit the base";
  if (!report.manifest)
    return "nothing speaks against it, and it carries no records to prove it by" + fits;
  if (!report.manifest->base_root) return "its records match, and they do not name a base" + fits;
  if (identity == nullptr) return "its records match; give --base to prove the base too";
  return "its records match, and the base's root is not known";
}

}  // namespace

std::string describe_base_check(const BaseIdentity* identity, const BaseEvidence& evidence,
                                const std::optional<Manifest>& manifest, std::size_t base_tensors) {
  if (identity == nullptr) return "no base given (--base)";
  if (has_recorded_root(manifest))
    return how_hashed(*identity, base_tensors) +
           (identity->root ? ", root " + identity->root->hex().substr(0, 12) : "");
  std::string text = "names and shapes only: the adapter records no base";
  if (!evidence.agreeing.empty()) text += "; equal: " + rules::join_some(evidence.agreeing, 8);
  if (identity->is_whole)
    text += "; " + how_hashed(*identity, base_tensors) + ", root " +
            identity->root->hex().substr(0, 12);
  return text;
}

void decide_verdict(const BaseIdentity* identity, const BaseEvidence& evidence,
                    VerifyReport& report) {
  const std::uint64_t left_out = errors_in(report.left_out) + errors_in(report.accepted);
  const std::size_t base_tensors = report.base_tensor_count;
  if (errors_in(report.findings) != 0) {
    report.verdict = Verdict::contradicted;
    report.verdict_reason = reason_of_errors(report.findings);
  } else if (left_out != 0) {
    report.verdict = Verdict::plausible;
    report.verdict_reason =
        count_text(left_out, "error") + " left out by --select, --ignore or the baseline";
  } else if (is_recorded_base(identity, report.manifest)) {
    report.verdict = Verdict::proven;
    report.verdict_reason = "every record matches and the base is the recorded one: " +
                            how_hashed(*identity, base_tensors);
  } else {
    report.verdict = Verdict::plausible;
    report.verdict_reason = reason_of_plausible(identity, evidence, report);
  }
}

}  // namespace lora
