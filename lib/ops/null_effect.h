// How much of an adapter's effect any update of its size would have.
#pragma once

#include <functional>

#include "lora/engine.h"
#include "lora/ops/verify.h"

namespace lora {

/// An adapter whose factors are normal random numbers, of the same shapes, scalings and update norm
/// in each module; saved parameters stay as they are. `sample` selects the random numbers.
Adapter random_twin(const Adapter& adapter, int sample);

/// Runs `samples` random twins on `inputs`. `base` and `adapted` are the outputs without and with
/// the real adapter; `options` are those of the model that gave them.
NullEffect null_effect(Engine& engine, const ModelOptions& options, const TensorMap& inputs,
                       const OutputMatrix& base, const OutputMatrix& adapted, int samples);

}  // namespace lora
