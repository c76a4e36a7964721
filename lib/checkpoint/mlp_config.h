// The mlp part of a config.json.
#pragma once

#include <string>

#include "lora/checkpoint/model_config.h"

namespace lora {

/// Sets config.mlp from config.document.
void parse_mlp(ModelConfig& config, const std::string& context);

/// Throws Error(usage) for names that MlpConfig does not list.
void check_mlp_activations(const std::string& activation, const std::string& final_activation);

}  // namespace lora
