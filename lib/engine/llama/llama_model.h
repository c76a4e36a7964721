// Llama-like decoders: Llama, SmolLM2, TinyLlama, Mistral without a sliding window.
#pragma once

#include <memory>

#include "engine/model.h"

namespace lora::engine {

/// options.base->config->decoder describes the model. Activations, adapters and their gradients are
/// f32; the frozen matrices are f32 or bf16 (see gemm.h).
std::unique_ptr<Model> make_llama(const ModelOptions& options);

}  // namespace lora::engine
