// The decoder families that config.json may name: data, and at most a small function each.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "checkpoint/config_fields.h"
#include "checkpoint/parse_rope.h"
#include "lora/checkpoint/decoder_config.h"

namespace lora {

/// What transformers' configuration class (5.23) fills in for absent fields, and how the family
/// differs from Llama.
struct DecoderFamily {
  std::string_view model_type;
  std::string_view class_prefix;
  std::int64_t vocab_size = 32000;
  std::int64_t hidden_size = 4096;
  std::int64_t intermediate_size = 11008;
  std::int64_t num_layers = 32;
  std::int64_t num_heads = 32;
  std::optional<std::int64_t> num_kv_heads = std::nullopt;  ///< none: as many as query heads
  std::optional<std::int64_t> head_dim = std::nullopt;      ///< none: hidden_size / num_heads
  std::int64_t max_position_embeddings = 2048;
  double rms_norm_eps = 1e-6;
  std::string_view activation_key = "hidden_act";
  std::string_view activation = "silu";
  std::optional<std::int64_t> bos_token_id = 1;
  std::optional<std::int64_t> eos_token_id = 2;
  std::optional<std::int64_t> pad_token_id = std::nullopt;
  RopeDefaults rope = {};
  bool has_layered_rope = false;  ///< Gemma 3's two embeddings
  /// Reads what only this family has. Returns why the engine cannot run it, empty when it can.
  std::string (*read_own)(const ConfigFields& fields, DecoderConfig& decoder) = nullptr;
};

std::span<const DecoderFamily> decoder_families();

/// Null for a model_type that is none.
const DecoderFamily* find_decoder_family(std::string_view model_type);

}  // namespace lora
