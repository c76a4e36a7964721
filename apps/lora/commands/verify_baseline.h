// The baseline of `lora verify`: what it accepted, what of it is stale, and writing a new one.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cli/console.h"
#include "lora/format/json.h"
#include "lora/ops/verify.h"

namespace lora::cli {

class BaselineRun {
 public:
  /// Reads `file` when given. Throws as read_baseline does.
  explicit BaselineRun(const std::optional<std::string>& file);

  const FindingBaseline& baseline() const { return baseline_; }

  /// Notes which entries one adapter needed, and its findings for a new baseline.
  void take(const VerifyReport& report);

  /// Says aloud which entries nothing matched. Entries of rules that the filter leaves out and of
  /// adapters that were not part of the run cannot be judged.
  void report_stale(const FindingFilter& filter, Console& console) const;

  /// Writes the errors and warnings of the run, accepted ones included.
  void write(const std::string& file, bool force, Console& console) const;

  /// {"file", "accepted", "stale"}; null without a baseline.
  Json json(const FindingFilter& filter) const;

 private:
  std::vector<FindingIdentity> stale(const FindingFilter& filter) const;

  std::optional<std::string> file_;
  FindingBaseline baseline_;
  std::set<std::size_t> used_;
  std::size_t accepted_ = 0;
  std::vector<std::pair<std::filesystem::path, Findings>> adapters_;
};

}  // namespace lora::cli
