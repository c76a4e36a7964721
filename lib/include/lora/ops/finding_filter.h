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

/// What makes a finding this one and no other: everything that says what is wrong, and nothing that
/// depends on where the files lie. Two findings are the same when all of this is.
struct FindingIdentity {
  std::string rule;
  std::string adapter;  ///< its path, relative to the folder it is known in
  std::string file;     ///< relative to the adapter; empty: the adapter itself
  std::string module;
  std::string tensor;
  std::string message;   ///< paths made relative; figures of outputs (LV6xx) kept to one digit
  std::string unlisted;  ///< digest of the names that the message does not list; empty: none
  friend auto operator<=>(const FindingIdentity&, const FindingIdentity&) = default;
};

/// `adapter` is the path as given, `folder` what paths are relative to (empty: the current one).
FindingIdentity identity_of(const Finding& finding, const std::filesystem::path& adapter,
                            const std::filesystem::path& folder);

/// The path of an adapter relative to `folder`, as both are named; where that leads out of the
/// folder, as they are once links are followed. "." for the folder itself.
std::string adapter_in(const std::filesystem::path& folder, const std::filesystem::path& adapter);

/// The findings of a file written with `lora verify --write-baseline`.
struct FindingBaseline {
  std::filesystem::path folder;           ///< of the file: paths of adapters are relative to it
  std::vector<FindingIdentity> accepted;  ///< sorted, no repeats

  /// Position of the entry that accepts `finding` of the adapter at this path; nullopt when none
  /// does.
  std::optional<std::size_t> find(const Finding& finding,
                                  const std::filesystem::path& adapter) const;
};

/// Errors and warnings of `findings` as a baseline; notes need no acceptance and LV101 (a path that
/// is no adapter) has none.
FindingBaseline make_baseline(const Findings& findings, const std::filesystem::path& adapter,
                              const std::filesystem::path& folder);
/// Both, sorted, without repeats, in the folder of `a`.
FindingBaseline merge_baselines(const FindingBaseline& a, const FindingBaseline& b);

/// {"schema": "lora.verify_baseline/2", "accepted": [{"rule", "adapter", "file", "module",
/// "tensor", "message", "unlisted"}]}: sorted, so that the same findings give the same bytes;
/// absent parts are null.
std::string dump_baseline(const FindingBaseline& baseline);
/// Throws Error(malformed) naming the entry: unknown or missing members, other types, unknown
/// rules; Error(unsupported) for another schema, with advice for that of earlier releases;
/// otherwise as read_json_file does.
FindingBaseline read_baseline(const std::filesystem::path& path);

struct FindingFilter {
  /// Rule ids ("LV305"), beginnings of ids ("LV3") or names ("key-missing"), in any case. An empty
  /// `select` chooses every rule; `ignore` wins over `select`.
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

/// Ids of the rules that a selector means, in the order of the table; empty when there is none.
std::vector<std::string> rules_of_selector(std::string_view selector);

/// Removes from `findings`, those of the adapter at this path, what the filter does not let
/// through. Throws Error(usage) for a selector that means no rule.
FilterOutcome apply_filter(const FindingFilter& filter, const std::filesystem::path& adapter,
                           Findings& findings);

}  // namespace lora
