#include "checkpoint/gpt2_config.h"

#include "checkpoint/head_config.h"

namespace lora {

void parse_gpt2(ModelConfig& config, const std::string& context) {
  const ConfigFields fields(config.document, context);
  // Both spellings of a field are read: attribute_map of transformers' class.
  const auto extent = [&](const char* key, const char* common, std::int64_t fallback) {
    return fields.extent(key).value_or(fields.extent(common).value_or(fallback));
  };
  Gpt2Config gpt2;
  gpt2.vocab_size = fields.extent("vocab_size").value_or(50257);
  gpt2.hidden_size = extent("n_embd", "hidden_size", 768);
  const auto layers = [&](const char* key) { return fields.integer(key, 1, 1 << 16); };
  gpt2.num_layers = layers("n_layer").value_or(layers("num_hidden_layers").value_or(12));
  gpt2.num_heads = extent("n_head", "num_attention_heads", 12);
  gpt2.max_position_embeddings = extent("n_positions", "max_position_embeddings", 1024);
  gpt2.intermediate_size = fields.extent("n_inner").value_or(4 * gpt2.hidden_size);
  gpt2.activation = fields.text("activation_function").value_or("gelu_new");
  gpt2.layer_norm_eps = fields.number("layer_norm_epsilon").value_or(1e-5);
  gpt2.embedding_dropout = dropout_rate(fields, "embd_pdrop", 0.1);
  gpt2.attention_dropout = dropout_rate(fields, "attn_pdrop", 0.1);
  gpt2.residual_dropout = dropout_rate(fields, "resid_pdrop", 0.1);
  gpt2.scale_attention = fields.boolean("scale_attn_weights").value_or(true);
  gpt2.scale_by_layer = fields.boolean("scale_attn_by_inverse_layer_idx").value_or(false);
  gpt2.tie_word_embeddings = config.tie_word_embeddings;
  gpt2.head = parse_head(config, fields);
  gpt2.eos_token_ids = fields.has("eos_token_id")
                           ? fields.ids("eos_token_id").value_or(std::vector<std::int64_t>())
                           : std::vector<std::int64_t>{50256};
  gpt2.pad_token_id = fields.integer("pad_token_id", -1, std::numeric_limits<std::int32_t>::max());
  require_whole_heads(fields, "n_embd", gpt2.hidden_size, gpt2.num_heads);

  config.unsupported_reason = unsupported_architecture(config, fields, "GPT2LMHeadModel");
  if (config.unsupported_reason.empty())
    config.unsupported_reason = unsupported_activation("activation_function", gpt2.activation);
  if (config.unsupported_reason.empty()) config.gpt2 = std::move(gpt2);
}

}  // namespace lora
