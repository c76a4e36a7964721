// config.json of base models: Hugging Face's two dialects and this project's mlp.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lora/format/json.h"

namespace lora {

/// Rotary embedding, from `rope_parameters` (transformers 5), `rope_scaling` + `rope_theta` (4.x) or
/// the architecture's default, in that order of precedence.
struct RopeConfig {
  enum class Type { plain, linear, llama3 };
  Type type = Type::plain;
  double theta = 10000;
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  std::int64_t original_max_position_embeddings = 0;
};

/// A Llama-like decoder (model_type llama, mistral without sliding window).
struct DecoderConfig {
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  bool attention_bias = false;
  bool mlp_bias = false;
  bool tie_word_embeddings = false;
  RopeConfig rope;
  std::vector<std::int64_t> eos_token_ids;
  std::optional<std::int64_t> bos_token_id;
};

/// A plain chain of Linear layers with one activation between them.
struct MlpConfig {
  std::vector<std::string> layers;        ///< module paths in order ("fc1", "net.2")
  std::vector<std::int64_t> hidden_sizes; ///< in, ..., out: layers.size() + 1 entries
  std::string activation = "relu";        ///< relu | gelu | gelu_tanh | silu | tanh | sigmoid | identity
  std::string final_activation = "none";  ///< none | log_softmax | softmax | sigmoid
};

struct ModelConfig {
  Json document;            ///< as read; written back unchanged by imports
  std::string model_type;   ///< "llama", "mistral", "mlp", ...
  std::string architecture; ///< first of `architectures`, empty when absent
  bool tie_word_embeddings = false;
  std::optional<DecoderConfig> decoder;  ///< set for families the engine can run as decoder
  std::optional<MlpConfig> mlp;
  bool is_transformers() const { return model_type != "mlp"; }
};

/// Throws Error(malformed) naming the field. A model_type this program cannot run is fine here
/// (decoder and mlp stay empty): light verbs need no architecture.
ModelConfig parse_model_config(Json document, const std::string& context);

}  // namespace lora
