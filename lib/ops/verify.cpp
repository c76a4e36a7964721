#include "lora/ops/verify.h"

#include <algorithm>

#include "lora/base/error.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/ops/adapter_index.h"
#include "ops/base_evidence.h"
#include "ops/base_identity.h"
#include "ops/base_targets.h"
#include "ops/module_figures.h"
#include "ops/rules/folder_rules.h"
#include "ops/rules/merged_check.h"
#include "ops/rules/rule.h"
#include "ops/verdict.h"
#include "ops/verify_open.h"
#include "ops/verify_outputs.h"

namespace lora {
namespace {

// What a look at the values alone can say for an adapter without errors in them.
std::string describe_values(const Findings& findings) {
  const bool is_partial = std::any_of(findings.begin(), findings.end(), [](const Finding& finding) {
    return finding.rule == "LV402" && finding.severity == Severity::warning;
  });
  return is_partial ? "values are finite, and not all have an effect"
                    : "values are finite and have an effect";
}

class Verification {
 public:
  explicit Verification(const VerifyOptions& options) : options_(options) {
    report_.path = options.adapter;
  }

  VerifyReport run() {
    if (!open()) {
      finish();
      return std::move(report_);
    }
    report_.is_readable = true;
    read_base();
    measure();
    compare_with_merged();
    run_rules();
    add_checks();
    if (options_.merged != nullptr || options_.merged_report)
      report_.checks.push_back(rules::check_of_merged(report_.merged));
    compare_outputs(options_, report_);
    finish();
    return std::move(report_);
  }

 private:
  void add_finding(std::string_view rule, const Error& error) {
    rules::Report report(report_.path.string());
    report.begin(rules::rule_by_id(rule));
    report.add(error.message(),
               {.tensor = error.tensor(), .module = {}, .hint = error.hint(), .severity = {}});
    take(report);
  }

  void unreadable(const Error& error) {
    UnreadableReason reason = reason_of(options_.adapter);
    if (reason.message.empty()) {
      add_finding(reason.rule, error);
    } else {
      add_finding(reason.rule, Error(error.kind(), reason.message).in_tensor(error.tensor()));
    }
    report_.checks.push_back({"integrity", CheckStatus::failed, error.message()});
    report_.verdict_reason = error.message();
    // What makes a file unreadable may be what makes it dangerous.
    rules::Report folder(report_.path.string());
    const std::string looked_at = rules::check_folder(report_.path, folder);
    take(folder);
    report_.checks.push_back({"security", status_of("security"), looked_at});
  }

  void take(rules::Report& rules_report) {
    for (Finding& finding : rules_report.take()) report_.findings.push_back(std::move(finding));
  }

  bool open() {
    try {
      std::vector<ConfigProblem> config_problems;
      const auto* known =
          options_.companions ? options_.companions->find(options_.adapter) : nullptr;
      if (known != nullptr) {
        report_.adapter = known->adapter;
        config_problems = known->config_problems;
        report_.manifest = known->manifest;
      } else {
        OpenedAdapter opened = open_to_verify(options_.adapter, options_.config);
        report_.adapter = std::move(opened.adapter);
        config_problems = std::move(opened.config_problems);
        report_.manifest = read_manifest(report_.adapter->directory());
      }
      for (const ConfigProblem& problem : config_problems)
        add_finding("LV201", Error(ErrorKind::malformed, problem.message));
      return true;
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::interrupted || error.kind() == ErrorKind::resources) throw;
      unreadable(error);
      return false;
    }
  }

  void read_base() {
    if (options_.base == nullptr) return;
    const ModuleList stored = list_modules(*options_.base);
    settle_with(*report_.adapter, *options_.base, stored);
    report_.base_modules = stored;
    try {
      targets_ = targets_in(report_.adapter->config, *options_.base, stored);
      report_.base_modules = replicate_layers(report_.adapter->config, stored);
    } catch (const Error& error) {
      // Nothing matches: every adapted module is then unexpected and reported as such.
      targets_.emplace();
      if (error.kind() != ErrorKind::incompatible) add_finding("LV201", error);
    }
    accounting_ = account(*report_.adapter, *options_.base, report_.base_modules, *targets_);
    report_.base_tensor_count = options_.base->tensors.size();
    identity_ = identify_base(*options_.base, report_.manifest, options_.full, options_.threads,
                              options_.sinks);
    evidence_ = compare_with_base(*report_.adapter, report_.manifest, *options_.base, targets_);
  }

  void measure() {
    AdapterFigures figures =
        adapter_figures(*report_.adapter, options_.base, options_.threads, options_.sinks);
    tensors_ = std::move(figures.tensors);
    report_.modules = std::move(figures.modules);
  }

  void compare_with_merged() {
    if (options_.merged_report) report_.merged = options_.merged_report;
    if (options_.merged == nullptr || options_.base == nullptr) return;
    MergedOptions options;
    options.candidates = options_.candidates;
    options.threads = options_.threads;
    options.sinks = options_.sinks;
    report_.merged = compare_merged(*report_.adapter, *options_.base, *options_.merged, options);
  }

  void run_rules() {
    const rules::Subject subject{
        *report_.adapter,       report_.manifest, tensors_,       report_.modules,    options_.base,
        report_.base_modules,   targets_,         accounting_,    identity_,          evidence_,
        options_.require_proof, options_.threads, report_.merged, options_.companions};
    rules::Report report(report_.path.string());
    for (const rules::Rule* rule : rules::all_rules()) {
      if (rule->check == nullptr) continue;
      report.begin(*rule);
      rule->check(subject, report);
    }
    security_ = rules::check_folder(report_.path, report);
    take(report);
  }

  bool has_error_in(std::string_view check) const {
    return std::any_of(report_.findings.begin(), report_.findings.end(), [&](const Finding& f) {
      return f.severity == Severity::error && check_of_rule(f.rule) == check;
    });
  }

  CheckStatus status_of(std::string_view check) const {
    return has_error_in(check) ? CheckStatus::failed : CheckStatus::passed;
  }

  void add_checks() {
    const Adapter& adapter = *report_.adapter;
    const std::string tensor_count = std::to_string(adapter.file_keys);
    report_.checks.push_back({"integrity", status_of("integrity"),
                              tensor_count + " tensors, every header byte accounted for"});
    std::string architecture = std::to_string(adapter.modules.size()) + " LoRA modules";
    if (targets_)
      architecture += " against " + std::to_string(targets_->lora.size()) + " targets in the base";
    report_.checks.push_back({"architecture", status_of("architecture"), architecture});
    const CheckStatus parameters = status_of("parameters");
    report_.checks.push_back(
        {"parameters", parameters, describe_parameters(parameters == CheckStatus::failed)});
    const BaseIdentity* identity = identity_ ? &*identity_ : nullptr;
    report_.checks.push_back(
        {"base", identity ? status_of("base") : CheckStatus::not_asked,
         describe_base_check(identity, evidence_, report_.manifest, report_.base_tensor_count)});
    report_.checks.push_back({"security", status_of("security"), security_});
  }

  void finish() {
    if (options_.strict)
      for (Finding& finding : report_.findings)
        if (finding.severity == Severity::warning) finding.severity = Severity::error;
    settle_checks();
    if (report_.is_readable) name_failures();
    // What makes a path unreadable is never filtered away.
    if (!report_.is_readable) return;
    FilterOutcome outcome = apply_filter(options_.filter, report_.path, report_.findings);
    report_.left_out = std::move(outcome.left_out);
    report_.accepted = std::move(outcome.accepted);
    report_.baseline_usage = std::move(outcome.baseline_usage);
    settle_checks();
    decide_verdict(identity_ ? &*identity_ : nullptr, evidence_, report_);
  }

  std::string describe_parameters(bool is_wrong) const {
    if (report_.manifest)
      return "values, shapes and scalings of " + std::to_string(report_.manifest->tensors.size()) +
             " recorded tensors";
    return "no record to compare with" +
           (is_wrong ? std::string() : "; " + describe_values(report_.findings));
  }

  // What a check looked at is not what it found: the rules that failed it say that.
  void name_failures() {
    for (CheckResult& check : report_.checks) {
      if (check.status != CheckStatus::failed) continue;
      std::vector<std::string> names;
      for (const Finding& finding : report_.findings) {
        if (finding.severity != Severity::error || check_of_rule(finding.rule) != check.name)
          continue;
        std::string name(rules::rule_by_id(finding.rule).info.name);
        if (std::find(names.begin(), names.end(), name) == names.end())
          names.push_back(std::move(name));
      }
      // Under --strict it may have passed before.
      if (check.name == "parameters") check.detail = describe_parameters(true);
      check.detail += "; wrong: " + rules::join_some(names);
    }
  }

  // A check fails with the errors that speak about it, and is waived when the filter took them.
  void settle_checks() {
    for (CheckResult& check : report_.checks) {
      const bool is_wrong = has_error_in(check.name);
      if (is_wrong && check.status == CheckStatus::passed) check.status = CheckStatus::failed;
      if (!is_wrong && check.status == CheckStatus::failed) check.status = CheckStatus::waived;
    }
  }

  const VerifyOptions& options_;
  VerifyReport report_;
  TensorFigures tensors_;
  std::optional<ResolvedTargets> targets_;
  std::optional<Accounting> accounting_;
  std::optional<BaseIdentity> identity_;
  BaseEvidence evidence_;
  std::string security_;
};

}  // namespace

std::string_view to_string(CheckStatus status) {
  switch (status) {
    case CheckStatus::passed:
      return "passed";
    case CheckStatus::failed:
      return "failed";
    case CheckStatus::waived:
      return "waived";
    case CheckStatus::not_made:
      return "not made";
    case CheckStatus::not_asked:
      return "not asked";
  }
  return "not made";
}

std::string_view check_of_rule(std::string_view rule_id) {
  switch (rule_id.size() > 2 ? rule_id[2] : '0') {
    case '2':
    case '3':
      return "architecture";
    case '4':
      return "parameters";
    case '5':
      return "base";
    case '6':
      return "outputs";
    case '7':
      return "merged";
    case '8':
      return "security";
    default:
      return "integrity";
  }
}

std::string_view to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::proven:
      return "proven";
    case Verdict::plausible:
      return "plausible";
    case Verdict::contradicted:
      return "contradicted";
    case Verdict::unreadable:
      return "unreadable";
  }
  return "unreadable";
}

bool VerifyReport::has_error() const {
  return std::any_of(findings.begin(), findings.end(),
                     [](const Finding& finding) { return finding.severity == Severity::error; });
}

bool VerifyReport::is_inconclusive() const {
  return std::any_of(checks.begin(), checks.end(), [](const CheckResult& check) {
    return check.status == CheckStatus::not_made;
  });
}

VerifyReport verify(const VerifyOptions& options) { return Verification(options).run(); }

std::vector<RuleInfo> verify_rules() {
  std::vector<RuleInfo> infos;
  for (const rules::Rule* rule : rules::all_rules()) infos.push_back(rule->info);
  return infos;
}

}  // namespace lora
