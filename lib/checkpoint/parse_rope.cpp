#include "checkpoint/parse_rope.h"

#include <algorithm>
#include <cmath>

#include "checkpoint/config_fields.h"

namespace lora {
namespace {

double required_positive(const ConfigFields& fields, std::string_view key,
                         const std::string& rope_type) {
  if (!fields.number(key)) throw fields.missing(key, "a number for rope type " + rope_type);
  return fields.positive(key, 1);
}

std::vector<double> factors(const Json& values, const ConfigFields& fields, std::string_view key,
                            std::size_t count) {
  const Json* found = values.find(key);
  const JsonArray* array = found ? found->as_array() : nullptr;
  const std::string expected =
      "a list of " + std::to_string(count) + " numbers for rope type longrope";
  if (found == nullptr) throw fields.missing(key, expected);
  if (array == nullptr) throw fields.wrong(key, std::string(found->type_name()), expected);
  if (array->size() != count)
    throw fields.wrong(key, "a list of " + std::to_string(array->size()), expected);
  std::vector<double> result;
  for (const Json& item : *array) {
    const auto number = item.as_double();
    if (!number || !(*number > 0 && *number < 1e300))
      throw fields.wrong(key, dump_json(item), "positive numbers");
    result.push_back(*number);
  }
  return result;
}

void parse_llama3(const ConfigFields& fields, const std::string& type, RopeConfig& rope) {
  rope.type = RopeConfig::Type::llama3;
  rope.factor = required_positive(fields, "factor", type);
  rope.low_freq_factor = required_positive(fields, "low_freq_factor", type);
  rope.high_freq_factor = required_positive(fields, "high_freq_factor", type);
  if (rope.high_freq_factor <= rope.low_freq_factor)
    throw fields.wrong("high_freq_factor", dump_json(rope.high_freq_factor),
                       "more than low_freq_factor " + dump_json(rope.low_freq_factor));
}

// transformers: factor is the ratio of the two numbers of positions unless given, and cos and sin
// grow by sqrt(1 + log(factor) / log(original positions)).
void parse_longrope(const Json& values, const ConfigFields& fields, const DecoderConfig& decoder,
                    RopeConfig& rope) {
  rope.type = RopeConfig::Type::longrope;
  const auto original = static_cast<double>(rope.original_max_position_embeddings);
  rope.factor =
      fields.positive("factor", static_cast<double>(decoder.max_position_embeddings) / original);
  rope.attention_factor = fields.positive(
      "attention_factor",
      rope.factor <= 1 ? 1 : std::sqrt(1 + std::log(rope.factor) / std::log(original)));
  const auto rotated =
      static_cast<std::int64_t>(static_cast<double>(decoder.head_dim) * rope.rotary_fraction);
  const auto count = static_cast<std::size_t>(rotated / 2);
  rope.short_factor = factors(values, fields, "short_factor", count);
  rope.long_factor = factors(values, fields, "long_factor", count);
}

// `values` is the object of one embedding, `top` the whole document.
std::string parse_values(const Json& values, const ConfigFields& fields, const ConfigFields& top,
                         const RopeDefaults& defaults, const DecoderConfig& decoder,
                         RopeConfig& rope) {
  rope.theta = fields.positive("rope_theta", rope.theta);
  const std::string type =
      fields.text("rope_type").value_or(fields.text("type").value_or("default"));
  const char* partial_key = "partial_rotary_factor";
  const double partial = fields.number(partial_key).value_or(top.number(partial_key).value_or(1.0));
  if (partial != 1.0) {
    if (!defaults.has_partial_rotation)
      return "partial_rotary_factor " + dump_json(partial) + " is not supported, expected 1";
    if (!(partial > 0 && partial < 1))
      throw fields.wrong(partial_key, dump_json(partial), "a number above 0 and up to 1");
    rope.rotary_fraction = partial;
    const auto width = static_cast<std::int64_t>(static_cast<double>(decoder.head_dim) * partial);
    if (width < 2 || width % 2 != 0)
      throw fields.wrong(
          partial_key, dump_json(partial),
          "an even part of the " + std::to_string(decoder.head_dim) + " numbers of a head");
  }
  const char* original_key = "original_max_position_embeddings";
  rope.original_max_position_embeddings =
      top.extent(original_key)
          .value_or(fields.extent(original_key).value_or(decoder.max_position_embeddings));
  if (type == "default") return {};
  if (type == "linear") {
    rope.type = RopeConfig::Type::linear;
    rope.factor = required_positive(fields, "factor", type);
    return {};
  }
  if (type == "llama3") {
    parse_llama3(fields, type, rope);
    return {};
  }
  // Phi-3's older names for it.
  const bool is_old_name = defaults.has_partial_rotation && (type == "su" || type == "yarn");
  if (type == "longrope" || is_old_name) {
    parse_longrope(values, fields, decoder, rope);
    return {};
  }
  return "rope type \"" + type +
         "\" is not supported, expected default, linear, llama3 or longrope";
}

bool is_filled(const Json* object) { return object != nullptr && !object->as_object()->empty(); }

}  // namespace

RopeObject rope_object(const ConfigFields& top) {
  static const Json none{JsonObject()};
  for (const char* key : {"rope_scaling", "rope_parameters"})
    if (const Json* found = top.object(key); is_filled(found))
      return {*found, std::string(key) + "."};
  return {none, {}};
}

std::string parse_rope(const Json& document, const std::string& context,
                       const RopeDefaults& defaults, DecoderConfig& decoder) {
  const ConfigFields top(document, context);
  RopeConfig& rope = decoder.rope;
  rope.theta = top.positive("rope_theta", defaults.theta);
  const RopeObject object = rope_object(top);
  const ConfigFields fields(object.values, context, object.prefix);
  return parse_values(object.values, fields, top, defaults, decoder, rope);
}

std::string parse_layered_rope(const Json& document, const std::string& context,
                               DecoderConfig& decoder) {
  const ConfigFields top(document, context);
  const Json empty{JsonObject()};
  const Json* parameters = top.object("rope_parameters");
  const auto embedding_of = [&](const char* layers, const char* theta_key, double theta,
                                const Json* scaling, RopeConfig& rope) {
    rope.theta = top.positive(theta_key, theta);
    const std::string prefix = "rope_parameters." + std::string(layers) + ".";
    const Json* found = parameters
                            ? ConfigFields(*parameters, context, "rope_parameters.").object(layers)
                            : nullptr;
    if (is_filled(scaling)) {
      const ConfigFields fields(*scaling, context, "rope_scaling.");
      return parse_values(*scaling, fields, top, {}, decoder, rope);
    }
    const Json& values = found ? *found : empty;
    return parse_values(values, ConfigFields(values, context, prefix), top, {}, decoder, rope);
  };
  std::string reason =
      embedding_of("full_attention", "rope_theta", 1e6, top.object("rope_scaling"), decoder.rope);
  decoder.sliding_rope.emplace();
  std::string other = embedding_of("sliding_attention", "rope_local_base_freq", 1e4, nullptr,
                                   *decoder.sliding_rope);
  return reason.empty() ? other : reason;
}

}  // namespace lora
