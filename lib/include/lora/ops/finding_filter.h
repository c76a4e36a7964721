// Which findings count: chosen rules, ignored rules, and a baseline of findings that are known and
// accepted. A filter acts before the verdict; what it leaves out is counted and never vanishes
// without a word, and that a path could not be read is never left out.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lora/ops/finding.h"

namespace lora {

/// One accepted finding. Two findings are the same when rule, module, tensor and `message` are;
/// the numbers that stand alone in a message do not count ("norm #, expected #"), nor do digests.
struct AcceptedFinding {
  std::string rule;
  std::string adapter;  ///< name of the adapter's folder; empty: any adapter
  std::string module;
  std::string tensor;
  std::string message;  ///< without changing numbers: see message_pattern
  friend auto operator<=>(const AcceptedFinding&, const AcceptedFinding&) = default;
};

/// The entry that accepts `finding`, for any adapter.
AcceptedFinding accepted_form(const Finding& finding);

/// A message with every free-standing number and every hexadecimal digest replaced by `#`. Digits
/// that belong to a name (fc1, layers.0.q_proj) stay.
std::string message_pattern(std::string_view message);

/// The findings of a file written with `lora verify --write-baseline`.
struct FindingBaseline {
  std::vector<AcceptedFinding> accepted;  ///< sorted, no repeats

  /// Position of the entry that accepts `finding` of this adapter; nullopt when none does.
  std::optional<std::size_t> find(const Finding& finding, std::string_view adapter) const;
};

/// Errors and warnings of `findings` as a baseline; notes need no acceptance and LV101 (a path that
/// is no adapter) has none. `adapter` empty: the entries hold for any adapter.
FindingBaseline make_baseline(const Findings& findings, std::string_view adapter);
/// Both, sorted, without repeats.
FindingBaseline merge_baselines(const FindingBaseline& a, const FindingBaseline& b);

/// {"schema": "lora.verify_baseline/1", "accepted": [{"rule", "adapter", "module", "tensor",
/// "message"}]}: sorted, so that the same findings give the same bytes; absent parts are null.
std::string dump_baseline(const FindingBaseline& baseline);
/// Throws Error(malformed) naming the entry: unknown or missing members, other types, unknown
/// rules; Error(unsupported) for another schema; otherwise as read_json_file does.
FindingBaseline read_baseline(const std::filesystem::path& path);

struct FindingFilter {
  /// Rule ids ("LV305"), beginnings of ids ("LV3") or names ("key-missing"). An empty `select`
  /// chooses every rule; `ignore` wins over `select`.
  std::vector<std::string> select;
  std::vector<std::string> ignore;
  FindingBaseline baseline;
};

/// What a filter left out of one adapter's findings.
struct FilterOutcome {
  Findings left_out;                        ///< by select and ignore
  Findings accepted;                        ///< by the baseline
  std::vector<std::size_t> baseline_usage;  ///< positions of the entries that were needed, sorted
};

/// The name that tells adapters apart in a baseline: that of the folder.
std::string adapter_name(const std::filesystem::path& adapter);

/// Ids of the rules that a selector means, in the order of the table; empty when there is none.
std::vector<std::string> rules_of_selector(std::string_view selector);

/// Removes from `findings` what the filter does not let through. `adapter` is the name of the
/// adapter's folder. Throws Error(usage) for a selector that means no rule.
FilterOutcome apply_filter(const FindingFilter& filter, std::string_view adapter,
                           Findings& findings);

}  // namespace lora
