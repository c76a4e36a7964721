// The llama and mistral part of a config.json.
#pragma once

#include <string>

#include "lora/checkpoint/model_config.h"

namespace lora {

/// Sets `layout`, and `decoder` or `unsupported_reason`, from config.document.
void parse_decoder(ModelConfig& config, const std::string& context);

}  // namespace lora
