// What configurations outside the Llama-like families share: the head, activations, dropouts.
#pragma once

#include <string>
#include <string_view>

#include "checkpoint/config_fields.h"
#include "lora/checkpoint/model_config.h"

namespace lora {

/// num_labels and problem_type of any configuration; the kind is set for an architecture that ends
/// with ForSequenceClassification or ForTokenClassification.
HeadConfig parse_head(const ModelConfig& config, const ConfigFields& fields);

/// A rate from 0 to below 1.
double dropout_rate(const ConfigFields& fields, std::string_view key, double fallback);

/// Empty when the engine computes this architecture: `language_model`, any name that ends with
/// ForSequenceClassification and, `with_token_classifier`, ForTokenClassification; otherwise why
/// not.
std::string unsupported_architecture(const ModelConfig& config, const ConfigFields& fields,
                                     std::string_view language_model,
                                     bool with_token_classifier = false);

/// Empty when the engine computes this activation, otherwise why not.
std::string unsupported_activation(std::string_view key, const std::string& name);

/// Throws Error(malformed) unless the hidden width is a multiple of the number of heads.
void require_whole_heads(const ConfigFields& fields, std::string_view key, std::int64_t width,
                         std::int64_t heads);

}  // namespace lora
