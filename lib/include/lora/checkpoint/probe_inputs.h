// The input that outputs are recorded for and compared on: a function of the base's configuration
// alone, so that any machine asks the same question.
#pragma once

#include "lora/base/tensor.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora {

/// Token models (any configuration with a vocab_size): `input_ids` I64 [4, 16] of uniformly drawn
/// ids, shorter where the model has fewer positions. An mlp: `x` F32 [4, features] of standard
/// normal values. Throws Error(unsupported) when the base has no configuration or none that says
/// what its inputs are.
TensorMap probe_inputs(const Checkpoint& base);

}  // namespace lora
