// Outputs on a fixed input, recorded with an adapter so that they can be compared later.
#pragma once

#include <string>

#include "lora/adapter/manifest.h"
#include "lora/checkpoint/model_config.h"
#include "lora/engine.h"

namespace lora::engine {

/// The input depends only on the base's configuration: two rows of up to 16 token ids, or four rows
/// of standard normal features for an mlp. Throws Error(unsupported) for a base without a known
/// configuration.
TensorMap probe_inputs(const ModelConfig& config);

/// Outputs of `model` with its adapters off and on; `options` are those it was made with.
Probe probe_model(EngineModel& model, const ModelOptions& options);

/// "f32" or "bf16": what a model with these options computes in.
std::string compute_name(const ModelOptions& options);

}  // namespace lora::engine
