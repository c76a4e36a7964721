// One decoder layer forward and backward, without an autograd graph.
#pragma once

#include <array>

#include "engine/kernels/kernels.h"
#include "engine/llama/cache.h"
#include "engine/llama/network.h"
#include "engine/workspace.h"

namespace lora::engine {

/// What a layer keeps from forward to backward. Norms in front of blocks and the gated activation
/// are computed again. `T` is LayerContext::storage.
struct LayerState {
  at::Tensor x;                                ///< f32 [rows, hidden], the input
  at::Tensor q, k, v;                          ///< T, rotated, heads layout
  std::array<at::Tensor, 2> unnormed;          ///< T [rows, width] of q and k, with head norms
  at::Tensor attention;                        ///< T [rows, heads * dim], before the projection
  at::Tensor attention_out;                    ///< T [rows, hidden], with a norm behind the block
  at::Tensor middle;                           ///< f32 [rows, hidden], x + attention block
  std::array<at::Tensor, 2> gate_up;           ///< T, of each linear layer; consumed by backward
  at::Tensor mlp_out;                          ///< T [rows, hidden], with a norm behind the block
  std::array<BranchProducts, 3> qkv_products;  ///< of each linear layer of the split one
  std::array<BranchProducts, 2> gate_up_products;
  BranchProducts o_products, down_products;
};

/// How the layers with a window, or those without, look at positions.
struct Sight {
  Rotation rotation;
  const std::int32_t* first_visible = nullptr;  ///< [batch, time], see ScoreBlock; null: 0
  std::int64_t window = 0;                      ///< 0: none
};

/// Shared by all layers of a pass.
struct LayerContext {
  const DecoderConfig& config;
  Workspace& workspace;
  Pass pass;
  std::int64_t batch = 0, time = 0;
  std::array<Sight, 2> sights;             ///< of layers without a window, and with one
  const std::uint8_t* key_mask = nullptr;  ///< [batch, time]; null: all present
  at::ScalarType storage = at::kFloat;     ///< of activations
  KeyValueCache* cache = nullptr;          ///< generation: receives keys and values

  std::int64_t rows() const { return batch * time; }
  const Sight& sight(const LlamaLayer& layer) const { return sights[layer.slides ? 1 : 0]; }
  HeadShape query_shape() const;
  HeadShape key_shape() const;
  ScoreRule score_rule() const;
  NormWeight norm_weight(const Parameter& parameter) const;
  at::Tensor scratch(Slot slot, at::IntArrayRef sizes) const {
    return workspace.get(slot, sizes, storage);
  }
};

/// out [rows, hidden] from state.x; fills the rest of `state`.
void layer_forward(const LlamaLayer& layer, const LayerContext& context, LayerState& state,
                   at::Tensor& out);

/// Turns g [rows, hidden], the gradient of the layer's output, into that of its input, and adds to
/// the gradients of what is trainable. With `input_gradient` false the layer is the lowest of
/// interest: g is left undefined and nothing is computed that only layers below would need.
void layer_backward(const LlamaLayer& layer, const LayerContext& context, LayerState& state,
                    at::Tensor& g, bool input_gradient);

}  // namespace lora::engine
