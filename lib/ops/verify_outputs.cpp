#include "ops/verify_outputs.h"

#include <algorithm>
#include <memory>

#include "lora/base/error.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/engine.h"
#include "ops/null_effect.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

// Largest |recorded - now| that rounding on another machine or thread count explains, relative to
// the largest recorded magnitude (at least 1). f32 forward passes of one model in two kernels agree
// to a few 1e-6; bf16 keeps 8 bits.
double tolerance_for(const std::string& compute, double magnitude) {
  return (compute == "bf16" ? 3e-2 : 2e-5) * std::max(1.0, magnitude);
}

bool is_coarse(DType dtype) { return is_float(dtype) && bits_of(dtype) < 32; }

// Weights of fewer bits give the precision of the outputs, whatever they are computed in.
std::string precision_of(const Checkpoint& checkpoint, const std::string& compute) {
  const bool has_coarse =
      std::any_of(checkpoint.tensors.begin(), checkpoint.tensors.end(),
                  [](const auto& entry) { return is_coarse(entry.second.dtype); });
  return has_coarse ? "bf16" : compute;
}

// The same answers from numbers with fewer bits: as far apart as bf16 allows, and of a size that
// does not matter to what is answered. Beside an adapter's effect it must be small too, or an
// adapter that does little could change unnoticed.
bool is_rounding(const OutputDifference& difference, double magnitude) {
  constexpr double kLargestDivergence = 1e-3;
  constexpr double kLeastAgreement = 0.9;
  return difference.largest <= tolerance_for("bf16", magnitude) &&
         difference.kl <= kLargestDivergence && difference.argmax_agreement >= kLeastAgreement;
}

OutputCause cause_of(const OutputComparison& outputs, double magnitude) {
  const bool base_is_equal = outputs.base.largest <= outputs.tolerance;
  const bool adapted_is_equal = outputs.adapted.largest <= outputs.tolerance;
  if (base_is_equal && adapted_is_equal) return OutputCause::equal;
  if (!base_is_equal && !is_rounding(outputs.base, magnitude)) return OutputCause::wrong_base;
  if (!adapted_is_equal && outputs.effect.largest <= outputs.tolerance)
    return OutputCause::inert_adapter;
  constexpr double kSmallBesideEffect = 0.1;
  const bool is_small = outputs.adapted.rms <= kSmallBesideEffect * outputs.effect.rms;
  if (adapted_is_equal || (is_small && is_rounding(outputs.adapted, magnitude)))
    return OutputCause::rounding;
  return OutputCause::changed;
}

std::string figures(const OutputDifference& difference) {
  if (difference.is_bit_equal) return "bit for bit";
  return "max |d| " + rules::figure(difference.largest) + ", KL " + rules::figure(difference.kl) +
         ", best output equal in " + rules::figure(100 * difference.argmax_agreement) + " %";
}

class OutputCheck {
 public:
  OutputCheck(const VerifyOptions& options, VerifyReport& report)
      : options_(options), report_(report) {}

  void run() {
    CheckResult check{"outputs", CheckStatus::not_asked, "not asked for (--outputs)"};
    if (options_.check_outputs) {
      std::string reason;
      try {
        const auto probe = find_probe(reason);
        if (probe) {
          check = compare(*probe);
        } else {
          check = not_made(reason);
        }
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::malformed && error.kind() != ErrorKind::not_found) throw;
        add("LV101", error.message());
        check = {"outputs", CheckStatus::not_made, error.message()};
      }
    }
    report_.checks.push_back(std::move(check));
  }

 private:
  void add(std::string_view rule, std::string message, std::optional<Severity> severity = {}) {
    rules::Report report(report_.path.string());
    report.begin(rules::rule_by_id(rule));
    report.add(std::move(message), {.tensor = {}, .module = {}, .hint = {}, .severity = severity});
    for (Finding& finding : report.take()) report_.findings.push_back(std::move(finding));
  }

  CheckResult not_made(const std::string& reason) {
    add("LV603", "outputs were not compared: " + reason);
    return {"outputs", CheckStatus::not_made, reason};
  }

  std::optional<Probe> find_probe(std::string& reason) const {
    if (options_.base == nullptr) {
      reason = "no base was given (--base)";
      return std::nullopt;
    }
    if (options_.probe != nullptr) return *options_.probe;
    const auto path = report_.adapter->directory() / kProbeName;
    if (!std::filesystem::exists(path)) {
      reason = "the adapter has no recorded outputs (" + std::string(kProbeName) + ")";
      return std::nullopt;
    }
    return read_probe(path);
  }

  CheckResult compare(const Probe& probe) {
    OutputComparison result;
    try {
      result = measure(probe);
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::interrupted || error.kind() == ErrorKind::resources) throw;
      return not_made(error.message());
    }
    report_.outputs = result;
    const auto before = static_cast<std::ptrdiff_t>(report_.findings.size());
    report_findings(result);
    const bool failed =
        std::any_of(report_.findings.begin() + before, report_.findings.end(),
                    [](const Finding& finding) { return finding.severity == Severity::error; });
    return {"outputs", failed ? CheckStatus::failed : CheckStatus::passed, detail_of(result)};
  }

  OutputComparison measure(const Probe& probe) {
    ModelOptions model_options;
    model_options.base = options_.base;
    model_options.adapters = {&*report_.adapter};
    model_options.compute = probe.compute == "bf16" ? Compute::bf16 : Compute::f32;
    Engine& engine = options_.engine();
    OutputMatrix adapted, base;
    {
      const auto model = engine.load_model(model_options);
      adapted = output_matrix(model->forward(probe.inputs));
      model->enable_adapters(false);
      base = output_matrix(model->forward(probe.inputs));
    }
    OutputComparison result;
    result.compute = probe.compute;
    result.base = difference(probe.base, base);
    result.adapted = difference(probe.adapted, adapted);
    result.effect = difference(base, adapted);
    const double magnitude = std::max(magnitude_of(probe.base), magnitude_of(probe.adapted));
    result.tolerance = tolerance_for(probe.compute, magnitude);
    result.cause = cause_of(result, magnitude);
    if (options_.merged != nullptr) {
      ModelOptions merged_options = model_options;
      merged_options.base = options_.merged;
      merged_options.adapters.clear();
      const auto model = engine.load_model(merged_options);
      result.merged = difference(probe.adapted, output_matrix(model->forward(probe.inputs)));
      // One more rounding of every weight than in the adapted model.
      constexpr double kMergeRounding = 4;
      result.merged_tolerance =
          kMergeRounding * tolerance_for(precision_of(*options_.merged, probe.compute), magnitude);
    }
    if (options_.null_samples > 0)
      result.null =
          null_effect(engine, model_options, probe.inputs, base, adapted, options_.null_samples);
    return result;
  }

  void report_findings(const OutputComparison& result) {
    const std::string tolerance = "; tolerance " + rules::figure(result.tolerance);
    if (result.cause == OutputCause::wrong_base)
      add("LV602", "outputs of the bare base are not the recorded ones: " + figures(result.base) +
                       tolerance);
    if (result.cause == OutputCause::changed ||
        (result.cause == OutputCause::wrong_base && result.adapted.largest > result.tolerance))
      add("LV601", "outputs of base + adapter are not the recorded ones: " +
                       figures(result.adapted) + tolerance);
    if (result.cause == OutputCause::inert_adapter) {
      add("LV604",
          "base + adapter now answer as the bare base does, and did not when recorded: " +
              figures(result.adapted) + tolerance,
          Severity::error);
    } else if (result.effect.largest == 0) {
      add("LV604", "the adapter does not change any output on the recorded input");
    }
    if (result.cause == OutputCause::rounding)
      add("LV606", "outputs are the recorded ones up to coarser rounding: base " +
                       figures(result.base) + "; base + adapter " + figures(result.adapted) +
                       tolerance);
    if (result.merged && result.merged->largest > result.merged_tolerance)
      add("LV607", "the merged checkpoint does not answer as base + adapter did: " +
                       figures(*result.merged) + "; tolerance " +
                       rules::figure(result.merged_tolerance));
    if (result.null && result.null->effect <= result.null->largest)
      add("LV605", "the adapter moves outputs by " + rules::figure(result.null->effect) +
                       " (rms), random adapters of the same norms by " +
                       rules::figure(result.null->mean) + " and up to " +
                       rules::figure(result.null->largest) + " (" +
                       std::to_string(result.null->samples) + " samples)");
  }

  static std::string detail_of(const OutputComparison& result) {
    std::string text = "same input, " + result.compute + ": base " + figures(result.base) +
                       "; base + adapter " + figures(result.adapted) + " (" +
                       std::string(to_string(result.cause)) + ", tolerance " +
                       rules::figure(result.tolerance) + "); the adapter moves outputs by " +
                       rules::figure(result.effect.largest);
    if (result.merged) text += "; merged " + figures(*result.merged);
    if (result.null)
      text += "; effect " + rules::figure(result.null->effect) + " rms against " +
              rules::figure(result.null->mean) + " of random adapters";
    return text;
  }

  const VerifyOptions& options_;
  VerifyReport& report_;
};

}  // namespace

std::string_view to_string(OutputCause cause) {
  switch (cause) {
    case OutputCause::equal:
      return "equal";
    case OutputCause::rounding:
      return "rounding";
    case OutputCause::wrong_base:
      return "wrong base";
    case OutputCause::inert_adapter:
      return "inert adapter";
    case OutputCause::changed:
      return "changed";
  }
  return "changed";
}

void compare_outputs(const VerifyOptions& options, VerifyReport& report) {
  OutputCheck(options, report).run();
}

}  // namespace lora
