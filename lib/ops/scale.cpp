#include "lora/ops/scale.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "lora/adapter/manifest.h"
#include "lora/adapter/strength.h"
#include "lora/base/error.h"
#include "ops/derived_adapter.h"
#include "ops/merge/finite.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

class Scaling {
 public:
  explicit Scaling(const ScaleOptions& options)
      : options_(options),
        adapter_(*options.adapter),
        name_(adapter_.path.string()),
        config_(new_config()),
        strengths_(config_) {}

  ScaleReport run() {
    check_request();
    require_source("scale", adapter_, options_.output);
    if (const std::string init = base_changing_init(adapter_.config); !init.empty())
      throw Error(ErrorKind::unsupported,
                  "cannot scale " + name_ + ": its initialisation " + init +
                      " takes the first factors off the base, which no scaling reaches")
          .in_file(name_)
          .with_hint("make it a plain LoRA first: lora convert " + name_ +
                     " --init-adapter DIR -o PLAIN");
    std::map<std::string, SiteFactors> factors;
    for (const LoraModule& module : adapter_.modules)
      if (module.tied_to.empty()) factors[module.module_path] = scaled(module);
    if (!out_of_range_.empty())
      throw Error(ErrorKind::incompatible, "cannot scale " + name_ +
                                               ": values leave the range of their dtype in " +
                                               rules::join_some(out_of_range_))
          .in_file(name_)
          .with_hint(is_f32() ? "no dtype has room for them: take a factor nearer to 1"
                              : "--dtype f32 has room for them");
    write(factors);
    return std::move(report_);
  }

 private:
  bool keeps_update() const { return options_.fold || options_.unfold.has_value(); }

  void check_request() const {
    const int requests = (options_.set ? 1 : 0) + (options_.times ? 1 : 0) +
                         (options_.fold ? 1 : 0) + (options_.unfold ? 1 : 0);
    if (requests != 1)
      throw Error(ErrorKind::usage,
                  "scale got " + std::string(requests == 0 ? "nothing to do" : "several requests") +
                      ", expected one of --set, --mul, --fold, --unfold");
    for (const std::optional<double>& value : {options_.set, options_.times, options_.unfold})
      if (value && !std::isfinite(*value))
        throw Error(ErrorKind::usage,
                    "a scaling is " + rules::figure(*value) + ", expected a finite number");
    if (options_.unfold && *options_.unfold == 0)
      throw Error(ErrorKind::usage, "--unfold is 0, by which nothing can be divided");
  }

  // Whether the factors would be written in the widest dtype there is to write.
  bool is_f32() const {
    const LoraModule* module = adapter_.find(out_of_range_.front());
    return options_.output.dtype.value_or(module->b.dtype) == DType::f32;
  }

  double scaling_after(const LoraModule& module) const {
    if (options_.set) return *options_.set;
    // As the written numbers give it, so that they need no patterns for a last bit.
    if (options_.times) return strengths_.scaling_of(pattern_path(module), module.rank);
    return options_.unfold.value_or(1);
  }

  SiteFactors scaled(const LoraModule& module) {
    const double after = scaling_after(module);
    SiteFactors factors{module.a, module.b, module.rank, after};
    if (!std::isfinite(after))
      throw Error(ErrorKind::usage, "the scaling of " + module.module_path + " would be " +
                                        rules::figure(after) + ", expected a finite number");
    if (keeps_update() && module.scaling != after)
      factors.b = multiplied(module, module.scaling / after);
    return factors;
  }

  Tensor multiplied(const LoraModule& module, double factor) {
    std::vector<double> values = module.b.to_f64();
    for (double& value : values) value *= factor;
    std::vector<std::byte> bytes(values.size() * sizeof(double));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    const Tensor exact = Tensor::from_bytes(DType::f64, module.b.shape, std::move(bytes));
    const Tensor rounded = exact.cast(options_.output.dtype.value_or(module.b.dtype));
    const std::vector<double> found = rounded.to_f64();
    double difference = 0, whole = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!std::isfinite(found[i])) {
        out_of_range_.push_back(module.module_path);
        break;
      }
      difference += (found[i] - values[i]) * (found[i] - values[i]);
      whole += values[i] * values[i];
    }
    if (whole > 0) report_.rounding = std::max(report_.rounding, std::sqrt(difference / whole));
    return rounded;
  }

  JsonObject parameters() const {
    JsonObject parameters;
    if (options_.set) parameters["set"] = *options_.set;
    if (options_.times) parameters["mul"] = *options_.times;
    if (options_.fold) parameters["fold"] = true;
    if (options_.unfold) parameters["unfold"] = *options_.unfold;
    if (options_.output.dtype) parameters["dtype"] = to_string(*options_.output.dtype);
    return parameters;
  }

  // As far as a few numbers say it all; with_strengths does the rest.
  AdapterConfig new_config() const {
    AdapterConfig config = adapter_.config;
    if (options_.times) {
      config.alpha *= *options_.times;
      for (auto& [key, alpha] : config.alpha_pattern) alpha *= *options_.times;
    } else if (config.rank_pattern.empty()) {
      config.alpha_pattern.clear();
      config.alpha = alpha_for(options_.set ? *options_.set : options_.unfold.value_or(1),
                               config.rank, config.use_rslora);
    }
    return config;
  }

  void write(const std::map<std::string, SiteFactors>& factors) {
    const Operation operation{
        "scale",
        parameters(),
        {lineage_of(adapter_, read_manifest(adapter_.directory()), options_.output.threads)}};
    // Setting and multiplying leave every tensor; a bias of lora_B is applied with the scaling too.
    TensorMap tensors = keeps_update() ? with_factors(adapter_, factors) : adapter_.tensors;
    Adapter source = adapter_;
    source.config = config_;
    report_.result = write_derived(adapter_, with_strengths(source, factors), std::move(tensors),
                                   operation, options_.output);
    for (const LoraModule& before : adapter_.modules) {
      const LoraModule& after = *report_.result.adapter.find(before.module_path);
      report_.modules.push_back({before.module_path, before.rank, before.alpha, before.scaling,
                                 after.alpha, after.scaling});
    }
    if (!keeps_update()) {
      if (adapter_.config.use_dora)
        report_.result.notes.push_back(
            "DoRA magnitudes stay as they are: the scaling turns the weights, it does not lengthen "
            "them");
      if (!adapter_.replacements.empty() || !adapter_.tokens.empty())
        report_.result.notes.push_back(
            "what the adapter replaces (saved modules, biases, token rows) has no scaling and "
            "stays");
    }
  }

  const ScaleOptions& options_;
  const Adapter& adapter_;
  std::string name_;
  AdapterConfig config_;
  PatternTable strengths_;
  std::vector<std::string> out_of_range_;
  ScaleReport report_;
};

}  // namespace

ScaleReport scale(const ScaleOptions& options) { return Scaling(options).run(); }

}  // namespace lora
