#include "lora/ops/finding_filter.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "lora/base/error.h"
#include "lora/ops/verify.h"

namespace lora {
namespace {

// A path that is no adapter has no other finding: without this one the run would look fine.
constexpr std::string_view kUnreadable = "LV101";

std::set<std::string> rules_of(const std::vector<std::string>& selectors) {
  std::set<std::string> ids;
  for (const std::string& selector : selectors) {
    const std::vector<std::string> chosen = rules_of_selector(selector);
    if (chosen.empty())
      throw Error(ErrorKind::usage, "no rule is called \"" + selector +
                                        "\", expected an id (LV305), the beginning of one (LV3) "
                                        "or a name (key-missing)");
    ids.insert(chosen.begin(), chosen.end());
  }
  return ids;
}

void sort_without_repeats(std::vector<FindingIdentity>& entries) {
  std::sort(entries.begin(), entries.end());
  entries.erase(std::unique(entries.begin(), entries.end()), entries.end());
}

}  // namespace

std::optional<std::size_t> FindingBaseline::find(const Finding& finding,
                                                 const std::filesystem::path& adapter) const {
  if (accepted.empty()) return std::nullopt;
  const FindingIdentity wanted = identity_of(finding, adapter, folder);
  const auto entry = std::lower_bound(accepted.begin(), accepted.end(), wanted);
  if (entry == accepted.end() || *entry != wanted) return std::nullopt;
  return static_cast<std::size_t>(entry - accepted.begin());
}

FindingBaseline make_baseline(const Findings& findings, const std::filesystem::path& adapter,
                              const std::filesystem::path& folder) {
  FindingBaseline baseline{folder, {}};
  for (const Finding& finding : findings)
    if (finding.severity != Severity::note && finding.rule != kUnreadable)
      baseline.accepted.push_back(identity_of(finding, adapter, folder));
  sort_without_repeats(baseline.accepted);
  return baseline;
}

FindingBaseline merge_baselines(const FindingBaseline& a, const FindingBaseline& b) {
  FindingBaseline both = a;
  both.accepted.insert(both.accepted.end(), b.accepted.begin(), b.accepted.end());
  sort_without_repeats(both.accepted);
  return both;
}

std::vector<std::string> rules_of_selector(std::string_view selector) {
  const auto folded = [&](int (*fold)(int)) {
    std::string text(selector);
    std::transform(text.begin(), text.end(), text.begin(),
                   [&](unsigned char c) { return static_cast<char>(fold(c)); });
    return text;
  };
  const std::string name = folded(std::tolower), id = folded(std::toupper);
  std::vector<std::string> ids;
  for (const RuleInfo& rule : verify_rules())
    if (rule.name == name || (id.size() > 2 && rule.id.starts_with(id))) ids.emplace_back(rule.id);
  return ids;
}

FilterOutcome apply_filter(const FindingFilter& filter, const std::filesystem::path& adapter,
                           Findings& findings) {
  const std::set<std::string> selected = rules_of(filter.select);
  const std::set<std::string> ignored = rules_of(filter.ignore);
  FilterOutcome outcome;
  std::set<std::size_t> used;
  Findings kept;
  for (Finding& finding : findings) {
    const bool counts = finding.rule == kUnreadable ||
                        ((filter.select.empty() || selected.contains(finding.rule)) &&
                         !ignored.contains(finding.rule));
    const auto entry = counts && finding.rule != kUnreadable
                           ? filter.baseline.find(finding, adapter)
                           : std::nullopt;
    if (entry) used.insert(*entry);
    Findings& place = !counts ? outcome.left_out : entry ? outcome.accepted : kept;
    place.push_back(std::move(finding));
  }
  findings = std::move(kept);
  outcome.baseline_usage.assign(used.begin(), used.end());
  return outcome;
}

}  // namespace lora
