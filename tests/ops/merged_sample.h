// A base, an adapter on it and merges of the two, made term by term as PEFT documents them.
#pragma once

#include <bit>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lora/format/safetensors.h"
#include "lora/ops/verify.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

namespace lora::testing {

inline float rounded(float value, DType dtype) {
  if (dtype == DType::bf16) return bf16_to_f32(f32_to_bf16(value));
  if (dtype == DType::f16) return f16_to_f32(f32_to_f16(value));
  return value;
}

/// How a module's update is added in these tests; the defaults are PEFT's merge.
struct MergeMaking {
  bool is_safe = false;  ///< the update is rounded before the sum
  int times = 1;
  double factor = 1;           ///< of the scaling
  bool is_transposed = false;  ///< the product is added transposed (square weights)
};

/// Weights "up" [24, 40], "square" [24, 24] and a "norm" [24] the adapter does not touch.
struct MergeSample {
  TempDir directory;
  DType dtype;
  AdapterConfig config = sample_config();
  TensorMap base, adapter, merged;

  explicit MergeSample(DType wanted = DType::f32, double update = 0.3) : dtype(wanted) {
    config.target_modules = std::vector<std::string>{"up", "square"};
    base["up.weight"] = normal_tensor("up", {24, 40}).cast(dtype);
    base["square.weight"] = normal_tensor("square", {24, 24}).cast(dtype);
    base["norm.weight"] = normal_tensor("norm", {24}).cast(dtype);
    base["norm.bias"] = normal_tensor("norm.bias", {24}).cast(dtype);
    adapter = factors(1, update);
    merge();
  }

  static TensorMap factors(std::uint64_t seed, double scale = 0.3) {
    TensorMap tensors;
    const auto add = [&](const std::string& module, std::int64_t rows, std::int64_t columns) {
      const std::string key = "base_model.model." + module + ".lora_";
      tensors[key + "A.weight"] = normal_tensor(module + "A", {4, columns}, scale, seed);
      tensors[key + "B.weight"] = normal_tensor(module + "B", {rows, 4}, scale, seed);
    };
    add("up", 24, 40);
    add("square", 24, 24);
    return tensors;
  }

  void merge(const MergeMaking& making = {}) {
    merged = base;
    for (const char* module : {"up", "square"}) merge_module(module, making);
  }

  void merge_module(const std::string& module, const MergeMaking& making) {
    const std::string key = "base_model.model." + module + ".lora_";
    const Tensor& weight = base.at(module + ".weight");
    const std::vector<float> a = adapter.at(key + "A.weight").to_f32();
    const std::vector<float> b = adapter.at(key + "B.weight").to_f32();
    std::vector<float> values = weight.to_f32();
    const auto scaling = static_cast<float>(scaling_of(config, module, 4) * making.factor);
    const std::size_t columns = static_cast<std::size_t>(weight.shape[1]);
    for (std::size_t at = 0; at < values.size(); ++at) {
      std::size_t i = at / columns, j = at % columns;
      if (making.is_transposed) std::swap(i, j);
      float chain = 0;
      for (std::size_t k = 0; k < 4; ++k) chain = std::fma(b[i * 4 + k], a[k * columns + j], chain);
      float update = chain * scaling;
      if (making.is_safe) update = rounded(update, dtype);
      for (int time = 0; time < making.times; ++time)
        values[at] = rounded(values[at] + update, dtype);
    }
    merged[module + ".weight"] = Tensor::from_f32(weight.shape, values).cast(dtype);
  }

  static void write(const std::filesystem::path& path, const TensorMap& tensors) {
    write_safetensors(path, tensors, &pytorch_metadata(), WriteOptions{true, nullptr});
  }

  VerifyReport verify(const std::vector<const Adapter*>& candidates = {}, int threads = 2) {
    write_sample(directory / "adapter", config, adapter);
    write(directory / "base.safetensors", base);
    write(directory / "merged.safetensors", merged);
    const Checkpoint base_checkpoint = open_checkpoint((directory / "base.safetensors").string());
    const Checkpoint checkpoint = open_checkpoint((directory / "merged.safetensors").string());
    VerifyOptions options;
    options.adapter = directory / "adapter";
    options.base = &base_checkpoint;
    options.merged = &checkpoint;
    options.candidates = candidates;
    options.threads = threads;
    return lora::verify(options);
  }

  /// Replaces values of a merged tensor.
  void change(const std::string& name, const std::function<void(std::vector<float>&)>& edit) {
    Tensor& tensor = merged.at(name);
    std::vector<float> values = tensor.to_f32();
    edit(values);
    tensor = Tensor::from_f32(tensor.shape, values).cast(tensor.dtype);
  }
};

inline std::string message_of(const VerifyReport& report, std::string_view rule) {
  for (const Finding& finding : report.findings)
    if (finding.rule == rule) return finding.message;
  return {};
}

inline MergeProof proof_of(const VerifyReport& report, const std::string& name) {
  for (const MergedTensor& tensor : report.merged.value().tensors)
    if (tensor.base_name == name) return tensor.proof;
  FAIL("no tensor " << name);
  return MergeProof::missing;
}

/// No finding of the 7xx group but notes.
inline void require_reproduced(const VerifyReport& report) {
  for (const Finding& finding : report.findings) {
    INFO(finding.rule << " " << finding.message);
    REQUIRE((finding.rule[2] != '7' || finding.severity == Severity::note));
  }
  REQUIRE(report.merged.value().is_reproduced());
}

}  // namespace lora::testing
