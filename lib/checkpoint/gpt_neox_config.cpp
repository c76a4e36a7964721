#include "checkpoint/gpt_neox_config.h"

#include "checkpoint/head_config.h"
#include "checkpoint/parse_rope.h"

namespace lora {
namespace {

// Sets rope and rotary_size. Returns why the engine cannot compute the positions, empty when it
// can. Older files have rotary_emb_base and rotary_pct in place of rope_parameters.
std::string read_positions(GptNeoxConfig& neox, const ConfigFields& top,
                           const std::string& context) {
  const RopeObject object = rope_object(top);
  const ConfigFields fields(object.values, context, object.prefix);
  neox.rope.theta = fields.positive("rope_theta", top.positive("rotary_emb_base", 10000));
  const bool is_inside = fields.has("partial_rotary_factor");
  const double part = fields.positive("partial_rotary_factor", top.positive("rotary_pct", 0.25));
  const auto head_size = static_cast<double>(neox.hidden_size / neox.num_heads);
  neox.rotary_size = part <= 1 ? static_cast<std::int64_t>(head_size * part) : 0;
  if (neox.rotary_size < 2 || neox.rotary_size % 2 != 0)
    throw(is_inside ? fields : top)
        .wrong(is_inside ? "partial_rotary_factor" : "rotary_pct", dump_json(part),
               "one that rotates an even number of a head's " +
                   std::to_string(neox.hidden_size / neox.num_heads) + " values");
  const std::string type =
      fields.text("rope_type").value_or(fields.text("type").value_or("default"));
  if (type == "linear") {
    if (!fields.number("factor")) throw fields.missing("factor", "a number for rope type linear");
    neox.rope.type = RopeConfig::Type::linear;
    neox.rope.factor = fields.positive("factor", 1);
  } else if (type != "default") {
    return "rope type \"" + type + "\" is not supported, expected default or linear";
  }
  return {};
}

}  // namespace

void parse_gpt_neox(ModelConfig& config, const std::string& context) {
  const ConfigFields fields(config.document, context);
  GptNeoxConfig neox;
  neox.vocab_size = fields.extent("vocab_size").value_or(50432);
  neox.hidden_size = fields.extent("hidden_size").value_or(6144);
  neox.intermediate_size = fields.extent("intermediate_size").value_or(24576);
  neox.num_layers = fields.integer("num_hidden_layers", 1, 1 << 16).value_or(44);
  neox.num_heads = fields.extent("num_attention_heads").value_or(64);
  neox.max_position_embeddings = fields.extent("max_position_embeddings").value_or(2048);
  neox.activation = fields.text("hidden_act").value_or("gelu");
  neox.layer_norm_eps = fields.number("layer_norm_eps").value_or(1e-5);
  neox.has_parallel_residual = fields.boolean("use_parallel_residual").value_or(true);
  neox.attention_bias = fields.boolean("attention_bias").value_or(true);
  neox.hidden_dropout = dropout_rate(fields, "hidden_dropout", 0);
  neox.attention_dropout = dropout_rate(fields, "attention_dropout", 0);
  neox.classifier_dropout = dropout_rate(fields, "classifier_dropout", 0.1);
  neox.tie_word_embeddings = config.tie_word_embeddings;
  neox.head = parse_head(config, fields);
  neox.eos_token_ids = fields.has("eos_token_id")
                           ? fields.ids("eos_token_id").value_or(std::vector<std::int64_t>())
                           : std::vector<std::int64_t>{2};
  neox.pad_token_id = fields.integer("pad_token_id", -1, std::numeric_limits<std::int32_t>::max());
  require_whole_heads(fields, "hidden_size", neox.hidden_size, neox.num_heads);

  std::string reason = read_positions(neox, fields, context);
  if (reason.empty()) reason = unsupported_architecture(config, fields, "GPTNeoXForCausalLM", true);
  if (reason.empty()) reason = unsupported_activation("hidden_act", neox.activation);
  if (reason.empty()) config.gpt_neox = std::move(neox);
  config.unsupported_reason = std::move(reason);
}

}  // namespace lora
