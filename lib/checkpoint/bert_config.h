// The bert part of a config.json.
#pragma once

#include <string>

#include "lora/checkpoint/model_config.h"

namespace lora {

/// Sets `bert` or `unsupported_reason` from config.document.
void parse_bert(ModelConfig& config, const std::string& context);

}  // namespace lora
