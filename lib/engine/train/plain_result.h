// An adapter whose base was changed, as a plain LoRA adapter for the base as it is.
#pragma once

#include "lora/adapter/adapter.h"

namespace lora::engine {

/// W - s B0 A0 + s B A is W + s [B, -B0] [A; A0]: twice the rank, the same scaling, nothing taken
/// out of the base. This is PEFT's conversion (path_initial_model_for_weight_conversion), patterns
/// and rsLoRA included. `first_factors` holds A0 and B0 by peft_key.
void make_plain(AdapterConfig& config, TensorMap& tensors, const TensorMap& first_factors);

}  // namespace lora::engine
