// A small base and an adapter on it, written to disk, for tests of what follows from their bytes.
#pragma once

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/adapter/manifest.h"
#include "lora/base/random.h"
#include "lora/checkpoint/base_lock.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/ops/init_base.h"

namespace lora::testing {

/// Reproducible normal values times `scale`.
inline Tensor normal_tensor(const std::string& name, std::vector<std::int64_t> shape,
                            double scale = 1, std::uint64_t seed = 1) {
  Tensor empty;
  empty.shape = shape;
  std::vector<float> values(static_cast<std::size_t>(empty.numel()));
  const CounterRandom random(seed, stream_of(name));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(scale * random.normal(i));
  return Tensor::from_f32(std::move(shape), values);
}

/// `lora init-base --preset mlp`: fc1 [20, 10], fc2 [2, 20].
inline Checkpoint sample_base(const std::filesystem::path& directory, std::uint64_t seed = 0) {
  InitBaseOptions options;
  options.preset = "mlp";
  options.output = directory;
  options.seed = seed;
  init_base(options);
  return open_checkpoint(directory.string());
}

inline AdapterConfig sample_config() {
  AdapterConfig config;
  config.peft_version = "0.21.2";
  config.rank = 4;
  config.alpha = 8;
  config.target_modules = std::vector<std::string>{"fc1", "fc2"};
  return config;
}

inline TensorMap sample_tensors(std::uint64_t seed = 1) {
  TensorMap tensors;
  const auto add = [&](const std::string& key, std::vector<std::int64_t> shape) {
    tensors[key] = normal_tensor(key, std::move(shape), 0.1, seed);
  };
  add("base_model.model.fc1.lora_A.weight", {4, 10});
  add("base_model.model.fc1.lora_B.weight", {20, 4});
  add("base_model.model.fc2.lora_A.weight", {4, 20});
  add("base_model.model.fc2.lora_B.weight", {2, 4});
  return tensors;
}

/// Writes the adapter; with `base`, its manifest records that base.
inline void write_sample(const std::filesystem::path& directory, const AdapterConfig& config,
                         const TensorMap& tensors, const Checkpoint* base = nullptr) {
  AtomicDirectory out(directory, WriteOptions{true, nullptr});
  write_adapter(out, config, tensors);
  if (base) {
    Manifest manifest = make_manifest(make_adapter(config, tensors, directory), 1);
    const BaseLock lock = compute_base_lock(*base, 1);
    manifest.base_root = lock.root;
    for (const char* name : {"fc1.weight", "fc2.weight"})
      manifest.base_tensors[name] = lock.tensors.at(name).digest;
    write_manifest(out, manifest);
  }
  out.commit();
}

}  // namespace lora::testing
