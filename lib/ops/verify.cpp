#include "lora/ops/verify.h"

#include <algorithm>

#include "lora/base/error.h"
#include "lora/checkpoint/base_lock.h"
#include "lora/checkpoint/checkpoint.h"
#include "ops/module_figures.h"
#include "ops/rules/rule.h"
#include "ops/verify_open.h"
#include "ops/verify_outputs.h"

namespace lora {
namespace {

class Verification {
 public:
  explicit Verification(const VerifyOptions& options) : options_(options) {
    report_.path = options.adapter;
  }

  VerifyReport run() {
    if (!open()) return std::move(report_);
    report_.is_readable = true;
    read_base();
    measure();
    run_rules();
    add_checks();
    compare_outputs(options_, report_);
    if (options_.strict)
      for (Finding& finding : report_.findings)
        if (finding.severity == Severity::warning) finding.severity = Severity::error;
    decide();
    return std::move(report_);
  }

 private:
  void add_finding(std::string_view rule, const Error& error) {
    rules::Report report(report_.path.string());
    report.begin(rules::rule_by_id(rule));
    report.add(error.message(),
               {.tensor = error.tensor(), .module = {}, .hint = error.hint(), .severity = {}});
    for (Finding& finding : report.take()) report_.findings.push_back(std::move(finding));
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
  }

  bool open() {
    try {
      OpenedAdapter opened = open_to_verify(options_.adapter, options_.config);
      report_.adapter = std::move(opened.adapter);
      for (const ConfigProblem& problem : opened.config_problems)
        add_finding("LV201", Error(ErrorKind::malformed, problem.message));
      report_.manifest = read_manifest(report_.adapter->directory());
      return true;
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::interrupted || error.kind() == ErrorKind::resources) throw;
      unreadable(error);
      return false;
    }
  }

  void read_base() {
    if (options_.base == nullptr) return;
    report_.base_modules = list_modules(*options_.base);
    settle_parameters(*report_.adapter, report_.base_modules,
                      options_.base->config ? options_.base->config->model_type : "");
    const bool is_transformers = options_.base->config && options_.base->config->is_transformers();
    try {
      targets_ = resolve_targets(config_with_targets(), report_.base_modules, is_transformers);
    } catch (const Error& error) {
      // Nothing matches: every adapted module is then unexpected and reported as such.
      targets_.emplace();
      if (error.kind() != ErrorKind::incompatible) add_finding("LV201", error);
    }
    accounting_ = account(*report_.adapter, *options_.base, report_.base_modules, *targets_);
    base_now_ = compute_base_lock(*options_.base, options_.threads, options_.sinks);
    const auto lock_path = options_.base->directory / kBaseLockName;
    if (!options_.base->directory.empty() && std::filesystem::exists(lock_path))
      base_recorded_ = read_base_lock(lock_path);
  }

  // Without target_modules PEFT takes those of the base's family.
  AdapterConfig config_with_targets() const {
    AdapterConfig config = report_.adapter->config;
    const Json* parameters = config.other.find("target_parameters");
    const bool has_parameters = parameters != nullptr && !parameters->is_null();
    if (std::holds_alternative<std::monostate>(config.target_modules) && !has_parameters &&
        options_.base->config)
      config.target_modules = default_selector(options_.base->config->model_type);
    return config;
  }

  void measure() {
    tensors_ = tensor_figures(report_.adapter->tensors, options_.threads);
    report_.modules = module_figures(*report_.adapter, tensors_, options_.base, options_.threads);
  }

  void run_rules() {
    const rules::Subject subject{
        *report_.adapter,       report_.manifest, tensors_,    report_.modules, options_.base,
        report_.base_modules,   targets_,         accounting_, base_now_,       base_recorded_,
        options_.require_proof, options_.threads};
    rules::Report report(report_.path.string());
    for (const rules::Rule* rule : rules::all_rules()) {
      if (rule->check == nullptr) continue;
      report.begin(*rule);
      rule->check(subject, report);
    }
    for (Finding& finding : report.take()) report_.findings.push_back(std::move(finding));
  }

  bool has_error_in(std::string_view groups) const {
    return std::any_of(report_.findings.begin(), report_.findings.end(), [&](const Finding& f) {
      return f.severity == Severity::error && groups.find(f.rule[2]) != std::string_view::npos;
    });
  }

  void add_checks() {
    const Adapter& adapter = *report_.adapter;
    const auto status = [&](std::string_view groups) {
      return has_error_in(groups) ? CheckStatus::failed : CheckStatus::passed;
    };
    const std::string tensor_count = std::to_string(adapter.tensors.size());
    report_.checks.push_back(
        {"integrity", status("1"), tensor_count + " tensors, every header byte accounted for"});
    std::string architecture = std::to_string(adapter.modules.size()) + " LoRA modules";
    if (targets_)
      architecture += " against " + std::to_string(targets_->lora.size()) + " targets in the base";
    report_.checks.push_back({"architecture", status("23"), architecture});
    report_.checks.push_back(
        {"parameters", status("4"),
         report_.manifest
             ? "values, shapes and scalings of " +
                   std::to_string(report_.manifest->tensors.size()) + " recorded tensors"
             : "no record to compare with; values are finite and have an effect"});
    CheckResult base{"base", CheckStatus::not_asked, "no base given (--base)"};
    if (base_now_ && report_.manifest && report_.manifest->base_root) {
      base = {"base", status("5"),
              std::to_string(base_now_->tensors.size()) + " tensors hashed, root " +
                  base_now_->root.hex().substr(0, 12)};
    } else if (base_now_) {
      base = {"base", status("5"), "names and shapes only: the adapter records no base"};
    }
    report_.checks.push_back(std::move(base));
  }

  void decide() {
    std::size_t errors = 0;
    for (const Finding& finding : report_.findings)
      errors += finding.severity == Severity::error ? 1 : 0;
    const bool has_record = report_.manifest.has_value();
    const bool base_is_proven = base_now_ && has_record && report_.manifest->base_root &&
                                base_now_->root == *report_.manifest->base_root;
    if (errors != 0) {
      report_.verdict = Verdict::contradicted;
      report_.verdict_reason = std::to_string(errors) + (errors == 1 ? " error" : " errors");
    } else if (base_is_proven) {
      report_.verdict = Verdict::proven;
      report_.verdict_reason = "every record matches and the base is the recorded one";
    } else {
      report_.verdict = Verdict::plausible;
      if (!has_record) {
        report_.verdict_reason =
            "nothing speaks against it, and it carries no records to prove it by";
      } else if (!report_.manifest->base_root) {
        report_.verdict_reason = "its records match, and they do not name a base";
      } else {
        report_.verdict_reason = "its records match; give --base to prove the base too";
      }
    }
  }

  const VerifyOptions& options_;
  VerifyReport report_;
  TensorFigures tensors_;
  std::optional<ResolvedTargets> targets_;
  std::optional<Accounting> accounting_;
  std::optional<BaseLock> base_now_;
  std::optional<BaseLock> base_recorded_;
};

}  // namespace

std::string_view to_string(CheckStatus status) {
  switch (status) {
    case CheckStatus::passed:
      return "passed";
    case CheckStatus::failed:
      return "failed";
    case CheckStatus::not_made:
      return "not made";
    case CheckStatus::not_asked:
      return "not asked";
  }
  return "not made";
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
