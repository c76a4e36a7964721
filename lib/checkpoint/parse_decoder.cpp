#include "checkpoint/parse_decoder.h"

#include <cmath>

#include "checkpoint/config_fields.h"
#include "checkpoint/decoder_families.h"
#include "checkpoint/head_config.h"

namespace lora {
namespace {

void check_heads(const ConfigFields& fields, const DecoderConfig& decoder, bool has_head_dim) {
  const auto multiple = [&](const char* key, std::int64_t value, const char* of_key,
                            std::int64_t of) {
    if (value % of != 0)
      throw fields.wrong(key, std::to_string(value),
                         "a multiple of " + std::string(of_key) + " " + std::to_string(of));
  };
  if (!has_head_dim)
    multiple("hidden_size", decoder.hidden_size, "num_attention_heads", decoder.num_heads);
  multiple("num_attention_heads", decoder.num_heads, "num_key_value_heads", decoder.num_kv_heads);
  // Half-split rotation pairs the first half of a head with the second.
  if (decoder.head_dim < 2 || decoder.head_dim % 2 != 0)
    throw fields.wrong("head_dim", std::to_string(decoder.head_dim), "an even number");
}

// Absent fields have the class's value; null stands for none.
std::optional<std::int64_t> id_or(const ConfigFields& fields, const char* key,
                                  std::optional<std::int64_t> fallback) {
  if (!fields.has(key)) return fallback;
  return fields.integer(key, -1, std::numeric_limits<std::int32_t>::max());
}

void read_sizes(const ConfigFields& fields, const DecoderFamily& family, DecoderConfig& decoder) {
  decoder.vocab_size = fields.extent("vocab_size").value_or(family.vocab_size);
  decoder.hidden_size = fields.extent("hidden_size").value_or(family.hidden_size);
  decoder.intermediate_size = fields.extent("intermediate_size").value_or(family.intermediate_size);
  decoder.num_layers = fields.integer("num_hidden_layers", 1, 1 << 16).value_or(family.num_layers);
  decoder.num_heads = fields.extent("num_attention_heads").value_or(family.num_heads);
  const auto default_kv_heads = fields.has("num_key_value_heads")
                                    ? decoder.num_heads
                                    : family.num_kv_heads.value_or(decoder.num_heads);
  decoder.num_kv_heads = fields.extent("num_key_value_heads").value_or(default_kv_heads);
  const auto head_dim = fields.has("head_dim") ? fields.extent("head_dim") : family.head_dim;
  decoder.head_dim = head_dim.value_or(decoder.hidden_size / decoder.num_heads);
  decoder.max_position_embeddings =
      fields.extent("max_position_embeddings").value_or(family.max_position_embeddings);
  check_heads(fields, decoder, head_dim.has_value());
}

}  // namespace

void parse_decoder(ModelConfig& config, const std::string& context) {
  const DecoderFamily& family = *find_decoder_family(config.model_type);
  const ConfigFields fields(config.document, context);

  DecoderConfig decoder;
  decoder.class_prefix = family.class_prefix;
  decoder.model_class = decoder.class_prefix + "Model";
  decoder.embedding_class = "Embedding";
  read_sizes(fields, family, decoder);
  decoder.activation = fields.text(family.activation_key).value_or(std::string(family.activation));
  decoder.rms_norm_eps = fields.positive("rms_norm_eps", family.rms_norm_eps);
  decoder.initializer_range = fields.positive("initializer_range", 0.02);
  decoder.attention_dropout = dropout_rate(fields, "attention_dropout", 0);
  decoder.attention_scale = 1 / std::sqrt(static_cast<double>(decoder.head_dim));
  decoder.tie_word_embeddings = config.tie_word_embeddings;
  decoder.bos_token_id = id_or(fields, "bos_token_id", family.bos_token_id);
  decoder.pad_token_id = id_or(fields, "pad_token_id", family.pad_token_id);
  if (fields.has("eos_token_id"))
    decoder.eos_token_ids = fields.ids("eos_token_id").value_or(std::vector<std::int64_t>());
  else if (family.eos_token_id)
    decoder.eos_token_ids = {*family.eos_token_id};

  std::string reason = family.read_own(fields, decoder);
  const std::string rope_reason = family.has_layered_rope
                                      ? parse_layered_rope(config.document, context, decoder)
                                      : parse_rope(config.document, context, family.rope, decoder);
  if (reason.empty()) reason = rope_reason;
  if (reason.empty() && activation_class(decoder.activation).empty())
    reason = std::string(family.activation_key) + " \"" + decoder.activation +
             "\" is not supported, expected silu, gelu or another of transformers' functions";
  if (reason.empty() && !config.quantization.empty())
    reason = "weights quantised with " + config.quantization +
             " are not supported, expected a checkpoint in F32, BF16 or F16";

  if (reason.empty()) config.decoder = decoder;
  config.layout = std::move(decoder);
  config.unsupported_reason = std::move(reason);
}

}  // namespace lora
