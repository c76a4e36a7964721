// What a decoder of the Llama kind is, as data: the engine and the module tree read this and know
// no family by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lora {

/// Rotary embedding, from `rope_parameters` (transformers 5), `rope_scaling` + `rope_theta` (4.x)
/// or the architecture's default, in that order of precedence.
struct RopeConfig {
  enum class Type { plain, linear, llama3, longrope };
  Type type = Type::plain;
  double theta = 10000;
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  std::int64_t original_max_position_embeddings = 0;
  double rotary_fraction = 1;  ///< of a head's width; the rest of it is not rotated
  /// longrope: a divisor for each frequency, up to the original positions and beyond them.
  std::vector<double> short_factor, long_factor;
  double attention_factor = 1;  ///< of cos and sin
};

/// Feed-forward blocks of several experts, of which a router picks some for each token.
struct ExpertConfig {
  std::int64_t count = 0;
  std::int64_t per_token = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t shared_intermediate_size = 0;  ///< of the expert that serves every token; 0: none
  bool router_is_last = false;                ///< of the block's modules
  bool normalizes_weights = true;             ///< the chosen experts' weights sum to 1
  std::vector<bool> is_sparse;                ///< by layer; the others have one plain block
};

struct DecoderConfig {
  /// Where a block's norms stand: in front of it (Llama), in front and behind (Gemma 2), or behind
  /// only (OLMo 2).
  enum class NormPlaces { before, around, behind };
  /// Norms of queries and keys in front of the rotation: of each head, or of all heads as one row.
  enum class HeadNorm { none, each, whole };

  std::string class_prefix;     ///< of the family's classes: "Llama"
  std::string model_class;      ///< of the module `model`: "LlamaModel"
  std::string embedding_class;  ///< "Embedding", or a family's own
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t max_position_embeddings = 0;
  std::string activation = "silu";  ///< of the gate, see activation_class
  double rms_norm_eps = 1e-6;
  bool norm_adds_one = false;  ///< a norm multiplies by 1 + weight
  NormPlaces norm_places = NormPlaces::before;
  HeadNorm head_norm = HeadNorm::none;
  bool qkv_bias = false;
  bool output_bias = false;  ///< of the projection behind attention
  bool mlp_bias = false;
  /// One matrix `qkv_proj` for q, k, v and one `gate_up_proj` for gate and up.
  bool has_fused_projections = false;
  bool tie_word_embeddings = false;
  double initializer_range = 0.02;  ///< standard deviation of fresh weights
  double embedding_multiplier = 1;
  double residual_multiplier = 1;  ///< of what a block adds
  double attention_scale = 0;      ///< of scores; 1 / sqrt(head_dim) unless a family says else
  double logits_divisor = 1;
  double attention_softcap = 0;  ///< scores become cap * tanh(score / cap); 0: none
  double logits_softcap = 0;
  double attention_dropout = 0, residual_dropout = 0;  ///< in training
  std::int64_t sliding_window = 0;  ///< positions that a sliding layer sees, itself included
  std::vector<bool> slides;         ///< by layer; empty: none does
  RopeConfig rope;
  std::optional<RopeConfig> sliding_rope;  ///< of sliding layers, where it differs
  std::optional<ExpertConfig> experts;
  std::vector<std::int64_t> eos_token_ids;  ///< an integer or a list in the file; may be empty
  std::optional<std::int64_t> bos_token_id;
  std::optional<std::int64_t> pad_token_id;

  bool layer_slides(std::int64_t layer) const {
    return !slides.empty() && slides[static_cast<std::size_t>(layer)];
  }
  bool layer_is_sparse(std::int64_t layer) const {
    return experts && experts->is_sparse[static_cast<std::size_t>(layer)];
  }
  std::int64_t query_width() const { return num_heads * head_dim; }
  std::int64_t key_width() const { return num_kv_heads * head_dim; }
};

}  // namespace lora
