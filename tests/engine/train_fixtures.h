// A small base, data and a fake model for tests of the training loop.
#pragma once

#include "support/torch_testing.h"
//
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "engine/model.h"
#include "engine/train/train.h"
#include "lora/adapter/adapter.h"
#include "lora/base/random.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/format/safetensors.h"

namespace lora::testing {

inline Tensor random_tensor(std::vector<std::int64_t> shape, std::uint64_t seed,
                            DType dtype = DType::f32) {
  const std::int64_t count =
      std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
  const CounterRandom random(seed, 0);
  std::vector<float> values;
  for (std::int64_t i = 0; i < count; ++i)
    values.push_back(0.3F * static_cast<float>(random.normal(static_cast<std::uint64_t>(i))));
  return Tensor::from_f32(std::move(shape), values).cast(dtype);
}

/// The seed example's network: 10-20-2, layers fc1 and fc2.
inline std::filesystem::path write_mlp_base(const std::filesystem::path& directory,
                                            std::uint64_t seed = 1, DType dtype = DType::f32) {
  write_file(directory / "config.json",
             R"({"model_type": "mlp", "layers": ["fc1", "fc2"], "hidden_sizes": [10, 20, 2]})");
  const TensorMap tensors{{"fc1.weight", random_tensor({20, 10}, seed, dtype)},
                          {"fc1.bias", random_tensor({20}, seed + 1, dtype)},
                          {"fc2.weight", random_tensor({2, 20}, seed + 2, dtype)},
                          {"fc2.bias", random_tensor({2}, seed + 3, dtype)}};
  write_safetensors(directory / "model.safetensors", tensors, &pytorch_metadata(), {true, nullptr});
  return directory;
}

/// x [rows, 10] and classes y [rows] that depend on x, so that there is something to learn.
inline std::filesystem::path write_table(const std::filesystem::path& path, std::int64_t rows,
                                         std::uint64_t seed) {
  const Tensor x = random_tensor({rows, 10}, seed);
  const std::vector<float> values = x.to_f32();
  std::vector<std::int64_t> classes;
  for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row)
    classes.push_back(values[row * 10] + values[row * 10 + 1] > 0 ? 1 : 0);
  write_safetensors(path, {{"x", x}, {"y", Tensor::from_i64({rows}, classes)}}, nullptr,
                    {true, nullptr});
  return path;
}

/// A model whose loss is the mean squared distance of every parameter from the first feature of
/// each row, with a gradient noise that is a function of the StepContext alone.
class FakeModel : public engine::Model {
 public:
  /// Step (from 1) at which the loss becomes NaN; 0: never.
  explicit FakeModel(const ModelOptions& options, std::int64_t poisoned_step = 0)
      : poisoned_step_(poisoned_step) {
    std::int64_t total = 0;
    std::vector<float> values;
    for (const auto& [key, tensor] : options.adapters.at(0)->tensors) {
      flat_.layout.push_back({key, tensor.shape, total, tensor.dtype});
      const std::vector<float> part = tensor.to_f32();
      values.insert(values.end(), part.begin(), part.end());
      total += tensor.numel();
    }
    flat_.values = at::tensor(values);
    flat_.gradients = at::zeros_like(flat_.values);
    is_trainable_ = options.trainable;
  }

  std::vector<ParameterInfo> parameters() const override {
    std::vector<ParameterInfo> result{{"frozen.weight", {3, 4}, DType::f32, false}};
    for (const auto& parameter : flat_.layout)
      result.push_back({parameter.peft_key, parameter.shape, DType::f32, is_trainable_});
    return result;
  }
  TensorMap forward(const TensorMap& inputs) override {
    const float sum = is_enabled_ ? flat_.values.sum().item<float>() : 0;
    const std::vector<float> output(static_cast<std::size_t>(inputs.at("x").shape[0]), sum);
    return {{"output", Tensor::from_f32({inputs.at("x").shape[0], 1}, output)}};
  }
  void enable_adapters(bool enabled) override { is_enabled_ = enabled; }
  std::vector<std::int64_t> generate(const std::vector<std::int64_t>&,
                                     const GenerateOptions&) override {
    return {};
  }
  engine::FlatParameters& trainable() override { return flat_; }
  void set_layer_checkpointing(bool) override {}

  engine::LossSum loss(const engine::Batch& batch) override {
    const std::vector<float> x = batch.x.to_f32();
    engine::LossSum total{0, batch.rows};
    for (std::int64_t row = 0; row < batch.rows; ++row) {
      const at::Tensor distance = flat_.values - x[static_cast<std::size_t>(row * 10)];
      total.sum += distance.to(at::kDouble).square().mean().item<double>();
    }
    return total;
  }
  engine::LossSum loss_and_gradients(const engine::Batch& batch, double gradient_scale,
                                     const engine::StepContext& context) override {
    engine::LossSum total = loss(batch);
    if (context.step + 1 == poisoned_step_) total.sum = std::numeric_limits<double>::quiet_NaN();
    const std::vector<float> x = batch.x.to_f32();
    const double count = static_cast<double>(flat_.values.numel());
    for (std::int64_t row = 0; row < batch.rows; ++row)
      flat_.gradients +=
          (flat_.values - x[static_cast<std::size_t>(row * 10)]) * (2 * gradient_scale / count);
    const CounterRandom noise(context.seed, 7);
    flat_.gradients +=
        1e-3 * noise.normal(static_cast<std::uint64_t>(100 * context.step + context.micro_batch));
    return total;
  }

 private:
  engine::FlatParameters flat_;
  std::int64_t poisoned_step_;
  bool is_trainable_ = false;
  bool is_enabled_ = true;
};

inline engine::TrainSurroundings fake_surroundings(FileSystem* file_system = nullptr,
                                                   std::int64_t poisoned_step = 0) {
  return {[poisoned_step](const ModelOptions& options) -> std::unique_ptr<engine::Model> {
            return std::make_unique<FakeModel>(options, poisoned_step);
          },
          file_system};
}

/// A base and data in a temporary folder, and options that train on them.
struct TrainFixture {
  TempDir folder;
  Checkpoint base;
  AdapterConfig config;

  explicit TrainFixture(std::int64_t rows = 12) {
    base = open_checkpoint(write_mlp_base(folder / "base").string());
    write_table(folder / "data.safetensors", rows, 5);
    write_table(folder / "eval.safetensors", 6, 6);
    config.rank = 4;
    config.alpha = 8;
    config.target_modules = std::vector<std::string>{"fc1", "fc2"};
  }

  TrainOptions options(const std::string& run) const {
    TrainOptions result;
    result.base_source = (folder / "base").string();
    result.base = &base;
    result.data = {folder / "data.safetensors"};
    result.run_dir = folder / run;
    result.adapter_config = &config;
    result.steps = 8;
    result.lr = 0.01;
    result.save_every = 2;
    result.tool_version = "0";
    return result;
  }

  TrainReport train(const TrainOptions& options, const engine::TrainSurroundings& surroundings,
                    const Sinks& sinks = {},
                    const std::function<void(const TrainEvent&)>& on_event = {}) const {
    return engine::run_training(options, surroundings, on_event, sinks);
  }
};

}  // namespace lora::testing
