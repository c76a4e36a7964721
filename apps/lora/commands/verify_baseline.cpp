#include "commands/verify_baseline.h"

#include <algorithm>

#include "cli/units.h"
#include "lora/base/atomic_write.h"

namespace lora::cli {
namespace {

std::string text_of(const FindingIdentity& entry) {
  const std::string& about = entry.tensor.empty() ? entry.module : entry.tensor;
  return entry.adapter + ": " + entry.rule + " " + (about.empty() ? "" : about + ": ") +
         entry.message;
}

}  // namespace

BaselineRun::BaselineRun(const std::optional<std::string>& file) : file_(file) {
  if (file) baseline_ = read_baseline(*file);
}

void BaselineRun::take(const VerifyReport& report) {
  used_.insert(report.baseline_usage.begin(), report.baseline_usage.end());
  accepted_ += static_cast<std::size_t>(count_of(report.accepted));
  Findings all = report.findings;
  all.insert(all.end(), report.accepted.begin(), report.accepted.end());
  adapters_.emplace_back(report.path, std::move(all));
}

std::vector<FindingIdentity> BaselineRun::stale(const FindingFilter& filter) const {
  const auto means = [](const std::vector<std::string>& selectors, const std::string& rule) {
    return std::any_of(selectors.begin(), selectors.end(), [&](const std::string& selector) {
      const auto rules = rules_of_selector(selector);
      return std::find(rules.begin(), rules.end(), rule) != rules.end();
    });
  };
  std::set<std::string> seen;
  for (const auto& [path, findings] : adapters_) seen.insert(adapter_in(baseline_.folder, path));
  std::vector<FindingIdentity> stale;
  for (std::size_t i = 0; i < baseline_.accepted.size(); ++i) {
    const FindingIdentity& entry = baseline_.accepted[i];
    const bool counts = (filter.select.empty() || means(filter.select, entry.rule)) &&
                        !means(filter.ignore, entry.rule);
    if (counts && seen.contains(entry.adapter) && !used_.contains(i)) stale.push_back(entry);
  }
  return stale;
}

void BaselineRun::report_stale(const FindingFilter& filter, Console& console) const {
  const std::vector<FindingIdentity> entries = stale(filter);
  if (entries.empty()) return;
  console.note(plural(entries.size(), "finding") + " of baseline " + *file_ +
               " no longer there; --write-baseline takes " + (entries.size() == 1 ? "it" : "them") +
               " out:");
  for (const FindingIdentity& entry : entries) console.note("  " + text_of(entry));
}

void BaselineRun::write(const std::string& file, bool force, Console& console) const {
  FindingBaseline fresh{std::filesystem::path(file).parent_path(), {}};
  for (const auto& [path, findings] : adapters_)
    fresh = merge_baselines(fresh, make_baseline(findings, path, fresh.folder));
  write_file_atomically(file, dump_baseline(fresh), WriteOptions{force, nullptr});
  console.note("wrote " + plural(fresh.accepted.size(), "finding") + " to baseline " + file);
}

Json BaselineRun::json(const FindingFilter& filter) const {
  if (!file_) return {};
  JsonArray entries;
  for (const FindingIdentity& entry : stale(filter))
    entries.push_back(JsonObject{{"rule", entry.rule},
                                 {"adapter", printable(entry.adapter)},
                                 {"module", entry.module.empty() ? Json() : Json(entry.module)},
                                 {"tensor", entry.tensor.empty() ? Json() : Json(entry.tensor)},
                                 {"message", entry.message}});
  return JsonObject{{"file", printable(*file_)},
                    {"accepted", static_cast<std::uint64_t>(accepted_)},
                    {"stale", std::move(entries)}};
}

}  // namespace lora::cli
