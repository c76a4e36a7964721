// verify: is this adapter what it claims to be, does it belong to this base, does it still compute
// what was recorded?
//
// Three comparisons (architecture, parameters, outputs) plus the integrity of the files and the
// identity of the base. Every statement is a Finding of a rule with a stable id; the rules are a
// table (docs/verify-rules.md).
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/adapter/manifest.h"
#include "lora/base/module.h"
#include "lora/base/sinks.h"
#include "lora/ops/finding.h"
#include "lora/ops/finding_filter.h"
#include "lora/ops/output_difference.h"
#include "lora/ops/statistics.h"
#include "lora/ops/verify_merged.h"

namespace lora {

struct Checkpoint;
struct Probe;
class AdapterIndex;
class Engine;

struct VerifyOptions {
  std::filesystem::path adapter;        ///< adapter directory, or weights file with `config`
  std::optional<AdapterConfig> config;  ///< for a weights file alone
  const Checkpoint* base = nullptr;     ///< null: what can be told without a base
  /// Hash every tensor of the base. Otherwise only the targeted ones are hashed where a
  /// base.lock.json vouches for the others, and none where the adapter records no base.
  bool full = false;
  FindingFilter filter;                ///< acts before verdict and checks are decided
  const Checkpoint* merged = nullptr;  ///< checkpoint that claims to be base + adapter
  /// Set instead of `merged`: what a merge of several adapters was found to be, or why the
  /// checkpoint could not be opened.
  std::optional<MergedReport> merged_report;
  /// The adapters of the same run; `adapter` may be among them and is not opened again then.
  /// Whether they can be loaded together is a note (LV318), never an error: nobody said that they
  /// should be.
  const AdapterIndex* companions = nullptr;
  /// Other adapters that `merged` may have been made with, to name the one that fits.
  std::vector<const Adapter*> candidates;
  bool check_outputs = false;    ///< compare outputs with the record; needs base and engine
  const Probe* probe = nullptr;  ///< record to use instead of the adapter's own
  int null_samples = 0;  ///< compare the effect with this many random adapters of equal norm
  /// Called when outputs are to be computed; throws Error(resources) when there is no engine.
  std::function<Engine&()> engine;
  bool require_proof = false;  ///< an unproven base is an error
  bool strict = false;         ///< warnings are errors
  int threads = 0;
  Sinks sinks;
};

/// waived: it failed, and every error that says so was left out by the filter.
enum class CheckStatus { passed, failed, waived, not_made, not_asked };
std::string_view to_string(CheckStatus status);

/// One of the questions verify answers: "integrity", "architecture", "parameters", "base",
/// "security", "outputs".
struct CheckResult {
  std::string name;
  CheckStatus status = CheckStatus::not_asked;
  std::string detail;  ///< one line: what was compared with what
};

/// Name of the check that a rule's errors fail: "integrity" for LV1xx, "architecture" for LV2xx and
/// LV3xx, and so on.
std::string_view check_of_rule(std::string_view rule_id);

/// proven: every record matches and the base is the recorded one. plausible: nothing speaks against
/// it. contradicted: an error was found. unreadable: not an adapter, or a damaged one.
enum class Verdict { proven, plausible, contradicted, unreadable };
std::string_view to_string(Verdict verdict);

/// The key figures of one adapted module. Factors that are stored as one tensor each have its
/// statistics in `a` and `b`.
struct ModuleFigures {
  std::string module_path;
  LayerKind kind = LayerKind::linear;
  std::int64_t rank = 0;
  double alpha = 0, scaling = 0;
  TensorStatistics a, b;
  UpdateStatistics update;
  std::optional<double> base_mean;        ///< with a base: mean of the targeted weight
  std::optional<double> base_norm;        ///< and its Frobenius norm
  std::optional<double> relative_update;  ///< ||dW|| / ||W||
};

/// What the differences between recorded and recomputed outputs come down to.
enum class OutputCause {
  equal,          ///< nothing beyond what another machine or thread count explains
  rounding,       ///< the same answers computed from coarser numbers (a base stored in less bits)
  wrong_base,     ///< the bare base answers differently
  inert_adapter,  ///< base + adapter now answer as the bare base does
  changed,        ///< the adapter does something, and not what it did
};
std::string_view to_string(OutputCause cause);

/// The effect of the adapter beside that of random adapters with the same shapes and norms.
struct NullEffect {
  int samples = 0;
  double effect = 0;         ///< rms of adapted - base over all outputs
  double mean = 0, std = 0;  ///< the same of the random adapters
  double largest = 0;
};

struct OutputComparison {
  std::string compute;
  double tolerance = 0;            ///< largest difference that counts as equal
  OutputDifference base, adapted;  ///< now against the record
  OutputDifference effect;         ///< base now against base + adapter now
  std::optional<OutputDifference>
      merged;  ///< the merged checkpoint against `adapted` of the record
  double merged_tolerance = 0;
  OutputCause cause = OutputCause::equal;
  std::optional<NullEffect> null;
};

struct VerifyReport {
  std::filesystem::path path;
  bool is_readable = false;  ///< false: exit code 3
  Verdict verdict = Verdict::unreadable;
  std::string verdict_reason;
  Findings findings;
  Findings left_out;  ///< by select and ignore of the filter; part of nothing else
  Findings accepted;  ///< by its baseline; part of nothing else
  std::vector<std::size_t> baseline_usage;  ///< positions of the baseline's entries that were used
  std::vector<CheckResult> checks;
  std::optional<Adapter> adapter;
  std::optional<Manifest> manifest;
  std::vector<ModuleFigures> modules;
  ModuleList base_modules;  ///< with a base
  std::size_t base_tensor_count = 0;
  std::optional<OutputComparison> outputs;
  std::optional<MergedReport> merged;  ///< where a merged checkpoint was given

  bool has_error() const;
  /// A check that was asked for could not be made.
  bool is_inconclusive() const;
};

/// Never throws for what the paths hold (that is a finding); throws Error(interrupted),
/// Error(resources), and Error(usage) for a filter that names unknown rules.
VerifyReport verify(const VerifyOptions& options);

/// The table of rules, for documentation and --explain.
struct RuleInfo {
  std::string_view id;        ///< "LV301"
  std::string_view name;      ///< "key-unexpected"
  Severity severity;          ///< usual severity; a rule may report a lower one
  std::string_view looks_at;  ///< what it examines
  std::string_view says;      ///< what it means when it fires
  std::string_view fix;       ///< what to do
};
std::vector<RuleInfo> verify_rules();

}  // namespace lora
