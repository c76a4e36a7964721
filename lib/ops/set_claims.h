// What one adapter claims of a model for itself, by which others may exclude it.
#pragma once

#include <set>
#include <string>

#include "lora/adapter/adapter.h"

namespace lora {

bool has_kasa(const AdapterConfig& config);

/// The entries of target_parameters.
std::set<std::string> target_parameters_of(const AdapterConfig& config);

/// Whether the factors alone say the shape of the weight that this site changes.
bool has_weight_shape(const LoraModule& module);

/// Module of a base parameter.
std::string owner_of_parameter(const std::string& base_name);

}  // namespace lora
