// The fast step of decoders of the Llama kind.
#pragma once

#include <memory>

#include "engine/model.h"
#include "lora/checkpoint/decoder_config.h"

namespace lora::engine {

/// Whether make_llama computes what `config` describes.
bool has_fast_step(const DecoderConfig& config);

/// options.base->config->decoder describes the model. Activations, adapters and their gradients are
/// f32; the frozen matrices are f32 or bf16 (see gemm.h).
std::unique_ptr<Model> make_llama(const ModelOptions& options);

}  // namespace lora::engine
