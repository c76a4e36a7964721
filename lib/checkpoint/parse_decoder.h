// The part of a config.json that describes a decoder of the Llama kind.
#pragma once

#include <string>
#include <string_view>

#include "lora/checkpoint/model_config.h"

namespace lora {

/// Sets `layout`, and `decoder` or `unsupported_reason`, from config.document, whose model_type is
/// one of decoder_families().
void parse_decoder(ModelConfig& config, const std::string& context);

}  // namespace lora
