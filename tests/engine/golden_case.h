// One folder of tests/golden/engine: a base, an adapter, and what transformers and PEFT computed.
#pragma once

#include "support/torch_testing.h"
//
#include <cmath>
#include <map>
#include <memory>
#include <set>

#include "engine/bridge.h"
#include "engine/model.h"
#include "lora/adapter/adapter.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/format/safetensors.h"

namespace lora::testing {

struct GoldenCase {
  explicit GoldenCase(const std::string& name)
      : directory(std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/engine" / name),
        base(open_checkpoint(directory.string())),
        adapter(open_adapter(directory / "adapter")),
        expected(read_safetensors(directory / "expected.safetensors").tensors) {}

  bool has(const std::string& name) const { return expected.contains(name); }

  at::Tensor value(const std::string& name) const {
    INFO(name);
    const auto found = expected.find(name);
    REQUIRE(found != expected.end());
    return engine::view_of(found->second);
  }
  std::vector<std::int64_t> integers(const std::string& name) const {
    const at::Tensor tensor = value(name).contiguous();
    const auto* data = tensor.const_data_ptr<std::int64_t>();
    return {data, data + tensor.numel()};
  }

  std::unique_ptr<engine::Model> bare(Compute compute = Compute::base) const {
    ModelOptions options;
    options.base = &base;
    options.compute = compute;
    return engine::make_model(options);
  }
  std::unique_ptr<engine::Model> adapted(bool trainable, Compute compute = Compute::base) const {
    ModelOptions options;
    options.base = &base;
    options.adapters = {&adapter};
    options.trainable = trainable;
    options.compute = compute;
    return engine::make_model(options);
  }

  TensorMap masked_inputs() const {
    return {{"input_ids", expected.at("input_ids")},
            {"attention_mask", expected.at("attention_mask")}};
  }
  ModelOptions options(bool trainable) const {
    ModelOptions result;
    result.base = &base;
    result.adapters = {&adapter};
    result.trainable = trainable;
    return result;
  }

  /// The token batch that `loss` and the gradients belong to.
  engine::Batch batch() const {
    engine::Batch result;
    const at::Tensor mask = value("attention_mask");
    result.rows = mask.size(0);
    result.columns = mask.size(1);
    result.input_ids = integers("input_ids");
    result.labels = integers("labels");
    const auto tokens = base.config->token_model();
    result.is_shifted = tokens && tokens->is_causal;
    if (has("y")) result.y = expected.at("y");
    const at::Tensor lengths = mask.sum(1);
    for (std::int64_t row = 0; row < result.rows; ++row)
      result.lengths.push_back(lengths[row].item<std::int64_t>());
    return result;
  }

  std::filesystem::path directory;
  Checkpoint base;
  Adapter adapter;
  TensorMap expected;
};

inline at::Tensor logits_of(engine::Model& model, const TensorMap& inputs) {
  const TensorMap outputs = model.forward(inputs);
  REQUIRE(outputs.size() == 1);
  return engine::view_of(outputs.at("logits")).clone();
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  REQUIRE(a.sizes() == b.sizes());
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

/// Norm of the difference over the norm of `expected`.
inline double relative_distance(const at::Tensor& actual, const at::Tensor& expected) {
  REQUIRE(actual.sizes() == expected.sizes());
  const at::Tensor wide = expected.to(at::kDouble);
  return ((actual.to(at::kDouble) - wide).norm() / wide.norm().clamp_min(1e-30)).item<double>();
}

inline at::Tensor gradient_of(engine::FlatParameters& flat,
                              const engine::TrainableParameter& parameter) {
  std::int64_t count = 1;
  for (const std::int64_t extent : parameter.shape) count *= extent;
  return flat.gradients.narrow(0, parameter.offset, count).view(parameter.shape);
}

/// Compares every gradient of `flat` with those that PEFT computed under `prefix`.
///
/// A gradient that cancels far below the others is known to the rounding of f32 of what cancelled:
/// that of a query in the last layer of bert_classifier is 1e-6 of the whole, and PEFT's own f32
/// values of it are 5e-3 from its f64 values (1e-5 for all others).
inline void check_gradients(const GoldenCase& golden, engine::FlatParameters& flat,
                            const std::string& prefix, double tolerance) {
  std::size_t expected = 0;
  double squares = 0;
  for (const auto& [name, tensor] : golden.expected) {
    if (!name.starts_with(prefix)) continue;
    ++expected;
    const double norm = golden.value(name).to(at::kDouble).norm().item<double>();
    squares += norm * norm;
  }
  std::set<std::int64_t> offsets;
  for (const engine::TrainableParameter& parameter : flat.layout) offsets.insert(parameter.offset);
  REQUIRE(offsets.size() == expected);
  const double rounding = std::ldexp(std::sqrt(squares), -24);
  for (const engine::TrainableParameter& parameter : flat.layout) {
    INFO(parameter.peft_key);
    // PEFT knows a tied parameter by one of its names.
    if (!golden.has(prefix + parameter.peft_key)) continue;
    const at::Tensor want = golden.value(prefix + parameter.peft_key).to(at::kDouble);
    const at::Tensor found = gradient_of(flat, parameter).to(at::kDouble);
    REQUIRE(found.sizes() == want.sizes());
    CHECK((found - want).norm().item<double>() < tolerance * want.norm().item<double>() + rounding);
  }
}

}  // namespace lora::testing
