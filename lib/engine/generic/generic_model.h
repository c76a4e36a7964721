// A model whose gradients LibTorch works out: every family, every kind of LoRA.
#pragma once

#include <memory>

#include "engine/generic/network.h"
#include "engine/model.h"

namespace lora::engine {

/// Puts the adapters of `options` onto the network. Everything is computed in f32.
std::unique_ptr<Model> make_generic(const ModelOptions& options, std::unique_ptr<Network> network);

/// True when an adapter has something that only the generic layers compute: DoRA, embeddings,
/// trainable tokens.
bool needs_generic(const ModelOptions& options);

}  // namespace lora::engine
