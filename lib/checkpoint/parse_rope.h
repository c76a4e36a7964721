// The rotary part of a config.json.
#pragma once

#include <string>

#include "lora/checkpoint/decoder_config.h"
#include "lora/format/json.h"

namespace lora {

struct RopeDefaults {
  double theta = 10000;
  bool has_partial_rotation = false;  ///< the family honours partial_rotary_factor
};

/// Fills decoder.rope. Returns why the engine cannot compute this embedding, empty when it can.
std::string parse_rope(const Json& document, const std::string& context,
                       const RopeDefaults& defaults, DecoderConfig& decoder);

/// Gemma 3: an embedding for layers that see everything and one for sliding layers, in
/// `rope_parameters`, or in `rope_theta`, `rope_scaling` and `rope_local_base_freq`.
std::string parse_layered_rope(const Json& document, const std::string& context,
                               DecoderConfig& decoder);

/// A number above zero, or the fallback when the field is absent.
double positive_or(const class ConfigFields& fields, std::string_view key, double fallback);

}  // namespace lora
