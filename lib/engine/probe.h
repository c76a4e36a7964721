// Outputs on a fixed input, recorded with an adapter so that they can be compared later.
#pragma once

#include <string>

#include "lora/adapter/probe.h"
#include "lora/engine.h"

namespace lora::engine {

/// Outputs of `model` on probe_inputs(*options.base) with its adapters off and on; `options` are
/// those it was made with. Throws Error(unsupported) as probe_inputs does.
Probe probe_model(EngineModel& model, const ModelOptions& options);

/// "f32" or "bf16": what a model with these options computes in.
std::string compute_name(const ModelOptions& options);

}  // namespace lora::engine
