// The rotary part of a config.json.
#pragma once

#include <string>

#include "checkpoint/config_fields.h"
#include "lora/checkpoint/decoder_config.h"
#include "lora/format/json.h"

namespace lora {

struct RopeDefaults {
  double theta = 10000;
  bool has_partial_rotation = false;  ///< the family honours partial_rotary_factor
};

/// The object that describes the embedding, and what its fields are called in messages: that of
/// rope_scaling before that of rope_parameters, of which transformers skips an empty one.
struct RopeObject {
  const Json& values;
  std::string prefix;
};
RopeObject rope_object(const ConfigFields& top);

/// Fills decoder.rope. Returns why the engine cannot compute this embedding, empty when it can.
std::string parse_rope(const Json& document, const std::string& context,
                       const RopeDefaults& defaults, DecoderConfig& decoder);

/// Gemma 3: an embedding for layers that see everything and one for sliding layers, in
/// `rope_parameters`, or in `rope_theta`, `rope_scaling` and `rope_local_base_freq`.
std::string parse_layered_rope(const Json& document, const std::string& context,
                               DecoderConfig& decoder);

}  // namespace lora
