#include "engine/mlp/mlp_model.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>
#include <c10/core/InferenceMode.h>

#include <optional>

#include "engine/adapter_binding.h"
#include "engine/bridge.h"
#include "engine/kernels/kernels.h"
#include "engine/linear.h"
#include "engine/mlp/activation.h"
#include "lora/base/error.h"

namespace lora::engine {
namespace {

class MlpModel final : public Model {
 public:
  explicit MlpModel(const ModelOptions& options)
      : options_(options),
        config_(*options.base->config->mlp),
        source_(options),
        hidden_(config_.activation),
        final_(config_.final_activation) {
    for (std::size_t i = 0; i < config_.layers.size(); ++i) {
      const std::string& path = config_.layers[i];
      const std::int64_t inputs = config_.hidden_sizes[i];
      const std::int64_t outputs = config_.hidden_sizes[i + 1];
      Parameter& weight = source_.add(path + ".weight", {outputs, inputs});
      Parameter* bias = options.base->find(path + ".bias") != nullptr
                            ? &source_.add(path + ".bias", {outputs})
                            : nullptr;
      layers_.emplace_back(path, weight, bias);
    }
    source_.throw_if_incomplete();
    Sites sites{{}, &source_.parameters()};
    for (Linear& layer : layers_) sites.layers.push_back(&layer.site());
    flat_ = bind_adapters(options_, sites, Gradients::manual);
  }

  std::vector<ParameterInfo> parameters() const override {
    return list_parameters(options_, flat_, source_.parameters());
  }
  void enable_adapters(bool enabled) override { are_adapters_enabled_ = enabled; }
  FlatParameters& trainable() override { return flat_; }
  // Activations of a chain of small layers are not worth recomputing.
  void set_layer_checkpointing(bool) override {}

  std::vector<std::int64_t> generate(const std::vector<std::int64_t>&,
                                     const GenerateOptions&) override {
    throw Error(ErrorKind::unsupported, "generating text: an mlp has no tokens");
  }

  TensorMap forward(const TensorMap& inputs) override {
    const c10::InferenceMode guard;
    const auto x = inputs.find("x");
    if (x == inputs.end() || inputs.size() != 1) {
      std::string found;
      for (const auto& [name, tensor] : inputs) found += (found.empty() ? "" : ", ") + name;
      throw Error(ErrorKind::incompatible,
                  "running an mlp: found the inputs {" + found + "}, expected {x}");
    }
    return {{"output", to_lora(run(x->second, {are_adapters_enabled_, nullptr}).clone())}};
  }

  LossSum loss(const Batch& batch) override {
    const c10::InferenceMode guard;
    return loss_of(run(batch.x, {are_adapters_enabled_, nullptr}), batch.y, 0, nullptr);
  }

  LossSum loss_and_gradients(const Batch& batch, double gradient_scale,
                             const StepContext& context) override {
    const c10::InferenceMode guard;
    const Pass pass{true, &context};
    const at::Tensor output = run(batch.x, pass);
    at::Tensor g;
    const LossSum result = loss_of(output, batch.y, gradient_scale, &g);
    backward(g, pass);
    return result;
  }

 private:
  struct Saved {
    at::Tensor input, linear, output;
    BranchProducts products;
  };

  at::Tensor run(const Tensor& x, const Pass& pass) {
    const std::int64_t features = config_.hidden_sizes.front();
    if (!is_float(x.dtype) || x.shape.size() != 2 || x.shape[1] != features)
      throw Error(ErrorKind::incompatible, "running an mlp: x is " +
                                               std::string(to_string(x.dtype)) + " " +
                                               shape_to_string(x.shape) + ", expected F32 [rows, " +
                                               std::to_string(features) + "]")
          .in_tensor("x");
    saved_.resize(layers_.size());
    at::Tensor value = convert(x, at::kFloat);
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      Saved& saved = saved_[i];
      saved.input = value;
      saved.linear = at::empty({value.size(0), layers_[i].outputs()}, at::kFloat);
      layers_[i].forward(value, saved.linear, pass, workspace_, &saved.products);
      const Activation& activation = i + 1 < layers_.size() ? hidden_ : final_;
      saved.output = activation.forward(saved.linear);
      value = saved.output;
    }
    return value;
  }

  // The loss and, when `g` is given, gradient_scale times the gradient of its sum.
  static LossSum loss_of(const at::Tensor& output, const Tensor& y, double gradient_scale,
                         at::Tensor* g) {
    const std::int64_t rows = output.size(0);
    const std::int64_t width = output.size(1);
    if (y.dtype == DType::i64 && y.shape == std::vector<std::int64_t>{rows}) {
      const at::Tensor labels = view_of(y);
      for (std::int64_t i = 0; i < rows; ++i) {
        const std::int64_t label = labels.const_data_ptr<std::int64_t>()[i];
        if (label < 0 || label >= width)
          throw Error(ErrorKind::incompatible,
                      "computing the loss: class " + std::to_string(label) + " in row " +
                          std::to_string(i) + ", expected 0 to " + std::to_string(width - 1))
              .in_tensor("y");
      }
      at::Tensor scores = output.clone();
      std::vector<double> losses(static_cast<std::size_t>(rows));
      cross_entropy(scores.mutable_data_ptr<float>(), labels.const_data_ptr<std::int64_t>(), rows,
                    width, static_cast<float>(gradient_scale), losses.data());
      if (g != nullptr) *g = scores;
      LossSum result{0, rows};
      for (const double value : losses) result.sum += value;
      return result;
    }
    if (is_float(y.dtype) && y.shape == output.sizes().vec()) {
      const at::Tensor difference = output.sub(convert(y, at::kFloat));
      if (g != nullptr) *g = difference.mul(2 * gradient_scale);
      return {difference.to(at::kDouble).square().sum().item<double>(), rows * width};
    }
    throw Error(ErrorKind::incompatible,
                "computing the loss: y is " + std::string(to_string(y.dtype)) + " " +
                    shape_to_string(y.shape) + ", expected I64 [" + std::to_string(rows) +
                    "] (classes) or F32 [" + std::to_string(rows) + ", " + std::to_string(width) +
                    "] (values)")
        .in_tensor("y");
  }

  void backward(at::Tensor g, const Pass& pass) {
    std::size_t lowest = 0;
    while (lowest < layers_.size() && !layers_[lowest].has_trainable()) ++lowest;
    for (std::size_t i = layers_.size(); i-- > lowest;) {
      const Saved& saved = saved_[i];
      const Activation& activation = i + 1 < layers_.size() ? hidden_ : final_;
      const at::Tensor inner = activation.backward(g, saved.linear, saved.output);
      at::Tensor dx = at::empty(saved.input.sizes(), at::kFloat);
      layers_[i].backward(saved.input, inner, saved.products, pass, workspace_,
                          i > lowest ? &dx : nullptr, false);
      g = dx;
    }
  }

  ModelOptions options_;
  MlpConfig config_;
  ParameterSource source_;
  Activation hidden_;
  Activation final_;
  std::deque<Linear> layers_;
  FlatParameters flat_;
  Workspace workspace_;
  std::vector<Saved> saved_;
  bool are_adapters_enabled_ = true;
};

}  // namespace

std::unique_ptr<Model> make_mlp(const ModelOptions& options) {
  return std::make_unique<MlpModel>(options);
}

}  // namespace lora::engine
