// Small bases on disk for the tests of this floor.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lora/checkpoint/base_lock.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/format/safetensors.h"
#include "lora/format/torch_file.h"
#include "support/testing.h"

namespace lora::testing {

/// A tensor whose values depend on `seed`, so that different names hold different bytes.
inline Tensor sample(std::vector<std::int64_t> shape, int seed) {
  std::size_t count = 1;
  for (const std::int64_t extent : shape) count *= static_cast<std::size_t>(extent);
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i)
    values[i] = static_cast<float>(seed) + static_cast<float>(i) * 0.25F;
  return Tensor::from_f32(std::move(shape), values);
}

inline void write_safetensors_file(const std::filesystem::path& path, const TensorMap& tensors) {
  std::filesystem::create_directories(path.parent_path());
  WriteOptions options;
  options.force = true;
  write_safetensors(path, tensors, &pytorch_metadata(), options);
}

inline void write_torch(const std::filesystem::path& path,
                        const std::vector<std::pair<std::string, Tensor>>& state_dict) {
  std::filesystem::create_directories(path.parent_path());
  WriteOptions options;
  options.force = true;
  write_file_atomically(path, options,
                        [&](WritableFile& file) { write_torch_file(file, state_dict); });
}

inline TensorMap chain_tensors() {
  return {{"fc1.weight", sample({20, 10}, 1)},
          {"fc1.bias", sample({20}, 2)},
          {"fc2.weight", sample({2, 20}, 3)},
          {"fc2.bias", sample({2}, 4)}};
}

/// config.json of a llama too small to matter; `more` is inserted before the closing brace.
inline std::string llama_config(const std::string& more = "") {
  return R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32,
"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
"num_key_value_heads": 1, "max_position_embeddings": 64)" +
         more + "}";
}

}  // namespace lora::testing
