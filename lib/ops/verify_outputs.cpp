#include "ops/verify_outputs.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "lora/base/error.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/engine.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

// Largest |recorded - now| that rounding on another machine or thread count explains, relative to
// the largest recorded magnitude (at least 1). f32 forward passes of one model in two kernels agree
// to a few 1e-6; bf16 keeps 8 bits.
double tolerance_for(const std::string& compute, double magnitude) {
  return (compute == "bf16" ? 3e-2 : 2e-5) * std::max(1.0, magnitude);
}

double largest_magnitude(const std::vector<float>& values) {
  double largest = 0;
  for (const float value : values)
    largest = std::max(largest, std::fabs(static_cast<double>(value)));
  return largest;
}

// NaN counts as an infinite difference.
double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (std::isnan(difference)) return HUGE_VAL;
    largest = std::max(largest, difference);
  }
  return largest;
}

// The record holds the last position of each row of token models.
std::vector<float> comparable(const TensorMap& outputs) {
  const auto logits = outputs.find("logits");
  if (logits == outputs.end()) return outputs.at("output").to_f32();
  const Tensor& tensor = logits->second;
  const std::vector<float> all = tensor.to_f32();
  const auto batch = static_cast<std::size_t>(tensor.shape.at(0));
  const auto positions = static_cast<std::size_t>(tensor.shape.at(1));
  const auto width = static_cast<std::size_t>(tensor.shape.at(2));
  std::vector<float> last;
  last.reserve(batch * width);
  for (std::size_t row = 0; row < batch; ++row) {
    const auto first =
        all.begin() + static_cast<std::ptrdiff_t>((row * positions + positions - 1) * width);
    last.insert(last.end(), first, first + static_cast<std::ptrdiff_t>(width));
  }
  return last;
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
          add("LV603", "outputs were not compared: " + reason);
          check = {"outputs", CheckStatus::not_made, reason};
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
  void add(std::string_view rule, std::string message) {
    rules::Report report(report_.path.string());
    report.begin(rules::rule_by_id(rule));
    report.add(std::move(message));
    for (Finding& finding : report.take()) report_.findings.push_back(std::move(finding));
  }

  std::optional<Probe> find_probe(std::string& reason) const {
    if (options_.base == nullptr) {
      reason = "no base was given (--base)";
      return std::nullopt;
    }
    if (options_.probe) return read_probe(*options_.probe);
    const auto directory = report_.adapter->directory();
    if (!std::filesystem::exists(directory / kProbeName)) {
      reason = "the adapter has no recorded outputs (" + std::string(kProbeName) + ")";
      return std::nullopt;
    }
    return read_probe(directory / kProbeName);
  }

  CheckResult compare(const Probe& probe) {
    ModelOptions model_options;
    model_options.base = options_.base;
    model_options.adapters = {&*report_.adapter};
    model_options.compute = probe.compute == "bf16" ? Compute::bf16 : Compute::f32;
    std::vector<float> adapted, base;
    try {
      const auto model = options_.engine().load_model(model_options);
      adapted = comparable(model->forward(probe.inputs));
      model->enable_adapters(false);
      base = comparable(model->forward(probe.inputs));
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::interrupted || error.kind() == ErrorKind::resources) throw;
      add("LV603", "outputs could not be computed: " + error.message());
      return {"outputs", CheckStatus::not_made, error.message()};
    }
    const std::vector<float> recorded_adapted = probe.adapted.to_f32();
    const std::vector<float> recorded_base = probe.base.to_f32();
    if (adapted.size() != recorded_adapted.size() || base.size() != recorded_base.size()) {
      add("LV601", "outputs have " + std::to_string(adapted.size()) + " values, the record has " +
                       std::to_string(recorded_adapted.size()));
      return {"outputs", CheckStatus::failed, "other sizes than recorded"};
    }
    OutputComparison result;
    result.compute = probe.compute;
    result.base_difference = largest_difference(base, recorded_base);
    result.adapted_difference = largest_difference(adapted, recorded_adapted);
    result.effect = largest_difference(adapted, base);
    result.tolerance = tolerance_for(probe.compute, std::max(largest_magnitude(recorded_adapted),
                                                             largest_magnitude(recorded_base)));
    report_.outputs = result;
    const auto beyond = [&](double difference) {
      return "largest difference " + rules::figure(difference) + ", tolerance " +
             rules::figure(result.tolerance);
    };
    const bool base_changed = result.base_difference > result.tolerance;
    const bool adapted_changed = result.adapted_difference > result.tolerance;
    if (base_changed)
      add("LV602",
          "outputs of the bare base are not the recorded ones: " + beyond(result.base_difference));
    if (adapted_changed)
      add("LV601", "outputs of base + adapter are not the recorded ones: " +
                       beyond(result.adapted_difference));
    if (result.effect == 0)
      add("LV604", "the adapter does not change any output on the recorded input");
    return {"outputs", base_changed || adapted_changed ? CheckStatus::failed : CheckStatus::passed,
            "same input, " + result.compute + ": base " + rules::figure(result.base_difference) +
                ", base + adapter " + rules::figure(result.adapted_difference) +
                " from the record (tolerance " + rules::figure(result.tolerance) +
                "); the adapter moves outputs by " + rules::figure(result.effect)};
  }

  const VerifyOptions& options_;
  VerifyReport& report_;
};

}  // namespace

void compare_outputs(const VerifyOptions& options, VerifyReport& report) {
  OutputCheck(options, report).run();
}

}  // namespace lora
