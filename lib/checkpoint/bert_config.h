// The part of a config.json that belongs to BERT and encoders of its kind.
#pragma once

#include <string>

#include "lora/checkpoint/model_config.h"

namespace lora {

/// Sets `bert` or `unsupported_reason` from config.document; the model_type is one that
/// find_encoder_layout knows.
void parse_bert(ModelConfig& config, const std::string& context);

}  // namespace lora
