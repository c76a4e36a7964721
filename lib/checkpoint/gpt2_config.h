// The gpt2 part of a config.json.
#pragma once

#include <string>

#include "lora/checkpoint/model_config.h"

namespace lora {

/// Sets `gpt2` or `unsupported_reason` from config.document.
void parse_gpt2(ModelConfig& config, const std::string& context);

}  // namespace lora
