// The gpt_neox part of a config.json.
#pragma once

#include <string>

#include "lora/checkpoint/model_config.h"

namespace lora {

/// Sets `gpt_neox` or `unsupported_reason` from config.document.
void parse_gpt_neox(ModelConfig& config, const std::string& context);

}  // namespace lora
