// Which matrices of a base are quantised, and what does not go together with that.
#pragma once

#include <string_view>

#include "lora/adapter/config.h"
#include "lora/engine.h"

namespace lora::engine {

/// Whether a matrix of this base_name belongs to one of a transformer's stacked layers: their paths
/// have a number ("model.layers.3.mlp.up_proj.weight"). Embeddings and heads have none.
bool is_layer_matrix(std::string_view base_name);

/// Throws Error(unsupported) for a base that has no such layers (an mlp).
void check_quantisable(const Checkpoint& base, BaseDtype dtype);

/// Throws Error(unsupported) for an adapter whose initialisation takes factors out of the base
/// (PiSSA, OLoRA): they belong to the exact weights, and what is left of those would have to be
/// quantised in their place.
void refuse_changed_base(const AdapterConfig& config, BaseDtype dtype);

}  // namespace lora::engine
