#include "checkpoint/decoder_config.h"

#include "checkpoint/config_fields.h"

namespace lora {
namespace {

struct ClassDefaults {
  std::int64_t intermediate_size;
  std::int64_t max_position_embeddings;
};
constexpr ClassDefaults kLlamaDefaults{11008, 2048};
constexpr ClassDefaults kMistralDefaults{14336, 131072};
constexpr std::int64_t kMistralKvHeads = 8;
constexpr std::int64_t kMistralWindow = 4096;

bool is_positive(double value) { return value > 0 && value < 1e300; }

double positive(const ConfigFields& fields, std::string_view key, double fallback) {
  const double value = fields.number(key).value_or(fallback);
  if (!is_positive(value)) throw fields.wrong(key, dump_json(value), "a positive number");
  return value;
}

double required_positive(const ConfigFields& fields, std::string_view key,
                         const std::string& rope_type) {
  if (!fields.number(key)) throw fields.missing(key, "a number for rope type " + rope_type);
  return positive(fields, key, 1);
}

// Returns why the engine cannot compute this embedding, empty when it can.
std::string parse_rope(const Json& document, const std::string& context, DecoderConfig& decoder) {
  const ConfigFields top(document, context);
  RopeConfig& rope = decoder.rope;
  rope.theta = positive(top, "rope_theta", 10000);

  // transformers takes rope_scaling first and skips an empty object of either name.
  const Json empty{JsonObject()};
  const Json* values = &empty;
  std::string prefix;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* found = top.object(key);
    if (found == nullptr || found->as_object()->empty()) continue;
    values = found;
    prefix = std::string(key) + ".";
    break;
  }
  const ConfigFields fields(*values, context, prefix);
  rope.theta = positive(fields, "rope_theta", rope.theta);
  const std::string type =
      fields.text("rope_type").value_or(fields.text("type").value_or("default"));
  const double partial = fields.number("partial_rotary_factor")
                             .value_or(top.number("partial_rotary_factor").value_or(1.0));
  if (partial != 1.0)
    return "partial_rotary_factor " + dump_json(partial) + " is not supported, expected 1";
  if (type == "default") return {};
  if (type == "linear") {
    rope.type = RopeConfig::Type::linear;
    rope.factor = required_positive(fields, "factor", type);
    return {};
  }
  if (type == "llama3") {
    rope.type = RopeConfig::Type::llama3;
    rope.factor = required_positive(fields, "factor", type);
    rope.low_freq_factor = required_positive(fields, "low_freq_factor", type);
    rope.high_freq_factor = required_positive(fields, "high_freq_factor", type);
    if (rope.high_freq_factor <= rope.low_freq_factor)
      throw fields.wrong("high_freq_factor", dump_json(rope.high_freq_factor),
                         "more than low_freq_factor " + dump_json(rope.low_freq_factor));
    const char* key = "original_max_position_embeddings";
    rope.original_max_position_embeddings =
        top.extent(key).value_or(fields.extent(key).value_or(decoder.max_position_embeddings));
    return {};
  }
  return "rope type \"" + type + "\" is not supported, expected default, linear or llama3";
}

void check_heads(const ConfigFields& fields, const DecoderConfig& decoder) {
  const auto multiple = [&](const char* key, std::int64_t value, const char* of_key,
                            std::int64_t of) {
    if (value % of != 0)
      throw fields.wrong(key, std::to_string(value),
                         "a multiple of " + std::string(of_key) + " " + std::to_string(of));
  };
  if (!fields.extent("head_dim"))
    multiple("hidden_size", decoder.hidden_size, "num_attention_heads", decoder.num_heads);
  multiple("num_attention_heads", decoder.num_heads, "num_key_value_heads", decoder.num_kv_heads);
  // Half-split rotation pairs the first half of a head with the second.
  if (decoder.head_dim < 2 || decoder.head_dim % 2 != 0)
    throw fields.wrong("head_dim", std::to_string(decoder.head_dim), "an even number");
}

}  // namespace

void parse_decoder(ModelConfig& config, const std::string& context) {
  const bool is_mistral = config.model_type == "mistral";
  const ClassDefaults& defaults = is_mistral ? kMistralDefaults : kLlamaDefaults;
  const ConfigFields fields(config.document, context);

  DecoderConfig decoder;
  decoder.vocab_size = fields.extent("vocab_size").value_or(32000);
  decoder.hidden_size = fields.extent("hidden_size").value_or(4096);
  decoder.intermediate_size =
      fields.extent("intermediate_size").value_or(defaults.intermediate_size);
  decoder.num_layers = fields.integer("num_hidden_layers", 1, 1 << 16).value_or(32);
  decoder.num_heads = fields.extent("num_attention_heads").value_or(32);
  const bool kv_heads_absent = !fields.has("num_key_value_heads");
  decoder.num_kv_heads =
      fields.extent("num_key_value_heads")
          .value_or(is_mistral && kv_heads_absent ? kMistralKvHeads : decoder.num_heads);
  decoder.head_dim = fields.extent("head_dim").value_or(decoder.hidden_size / decoder.num_heads);
  decoder.max_position_embeddings =
      fields.extent("max_position_embeddings").value_or(defaults.max_position_embeddings);
  decoder.rms_norm_eps = positive(fields, "rms_norm_eps", 1e-6);
  decoder.initializer_range = positive(fields, "initializer_range", 0.02);
  if (!is_mistral) {
    decoder.attention_bias = fields.boolean("attention_bias").value_or(false);
    decoder.mlp_bias = fields.boolean("mlp_bias").value_or(false);
  }
  decoder.tie_word_embeddings = config.tie_word_embeddings;
  decoder.eos_token_ids = fields.has("eos_token_id")
                              ? fields.ids("eos_token_id").value_or(std::vector<std::int64_t>())
                              : std::vector<std::int64_t>{2};
  const auto id = [&](const char* key) {
    return fields.integer(key, -1, std::numeric_limits<std::int32_t>::max());
  };
  decoder.bos_token_id = fields.has("bos_token_id") ? id("bos_token_id") : 1;
  decoder.pad_token_id = id("pad_token_id");
  check_heads(fields, decoder);

  std::string reason = parse_rope(config.document, context, decoder);
  const std::string activation = fields.text("hidden_act").value_or("silu");
  if (reason.empty() && activation != "silu")
    reason = "hidden_act \"" + activation + "\" is not supported, expected silu";
  if (is_mistral && reason.empty()) {
    const auto window = fields.has("sliding_window") ? fields.extent("sliding_window")
                                                     : std::optional(kMistralWindow);
    if (window && *window < decoder.max_position_embeddings)
      reason = "a sliding window of " + std::to_string(*window) + " positions (of " +
               std::to_string(decoder.max_position_embeddings) + ") is not supported";
  }
  if (reason.empty() && !config.quantization.empty())
    reason = "weights quantised with " + config.quantization + " are not supported";

  if (reason.empty()) config.decoder = decoder;
  config.layout = std::move(decoder);
  config.unsupported_reason = std::move(reason);
}

}  // namespace lora
