// An engine for two-layer mlps written out by hand, for tests of what is done with outputs.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/adapter/probe.h"
#include "lora/base/error.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/engine.h"

namespace lora::testing {

/// fc2(relu(fc1(x))) with the plain LoRA updates of any number of adapters, in f32.
class SmallModel final : public EngineModel {
 public:
  explicit SmallModel(const ModelOptions& options) : options_(options) {}

  std::vector<ParameterInfo> parameters() const override { return {}; }
  void enable_adapters(bool enabled) override { is_enabled_ = enabled; }
  std::vector<std::int64_t> generate(const std::vector<std::int64_t>&,
                                     const GenerateOptions&) override {
    throw Error(ErrorKind::unsupported, "an mlp generates nothing");
  }

  TensorMap forward(const TensorMap& inputs) override {
    const Tensor& x = inputs.at("x");
    const std::int64_t rows = x.shape[0];
    std::vector<float> hidden = layer("fc1", x.to_f32(), rows);
    for (float& value : hidden) value = std::max(value, 0.0F);
    const std::vector<float> outputs = layer("fc2", hidden, rows);
    return {{"output", Tensor::from_f32({rows, std::int64_t(outputs.size()) / rows}, outputs)}};
  }

 private:
  // x w^T for w [out, in].
  static std::vector<float> product(const std::vector<float>& x, const Tensor& weight,
                                    std::int64_t rows) {
    const std::vector<float> w = weight.to_f32();
    const auto out = static_cast<std::size_t>(weight.shape[0]);
    const auto in = static_cast<std::size_t>(weight.shape[1]);
    std::vector<float> y(static_cast<std::size_t>(rows) * out);
    for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r)
      for (std::size_t o = 0; o < out; ++o)
        for (std::size_t i = 0; i < in; ++i) y[r * out + o] += x[r * in + i] * w[o * in + i];
    return y;
  }

  std::vector<float> layer(const std::string& path, const std::vector<float>& x,
                           std::int64_t rows) const {
    const Checkpoint& base = *options_.base;
    std::vector<float> y = product(x, *base.find(path + ".weight"), rows);
    const std::vector<float> bias = base.find(path + ".bias")->to_f32();
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += bias[i % bias.size()];
    if (!is_enabled_) return y;
    for (const Adapter* adapter : options_.adapters) {
      const LoraModule* module = adapter->find(path);
      if (module == nullptr) continue;
      const std::vector<float> update = product(product(x, module->a, rows), module->b, rows);
      for (std::size_t i = 0; i < y.size(); ++i)
        y[i] += static_cast<float>(module->scaling) * update[i];
    }
    return y;
  }

  ModelOptions options_;
  bool is_enabled_ = true;
};

class SmallEngine final : public Engine {
 public:
  EngineInfo info() const override { return {}; }
  void set_threads(int) override {}
  std::unique_ptr<EngineModel> load_model(const ModelOptions& options) override {
    return std::make_unique<SmallModel>(options);
  }
  Probe record_probe(const ModelOptions&) override {
    throw Error(ErrorKind::unsupported, "this engine records nothing");
  }
  TrainReport train(const TrainOptions&, const std::function<void(const TrainEvent&)>&,
                    const Sinks&) override {
    throw Error(ErrorKind::unsupported, "this engine trains nothing");
  }
};

}  // namespace lora::testing
