// One decoder layer forward and backward, without an autograd graph.
#pragma once

#include "engine/kernels/kernels.h"
#include "engine/llama/network.h"
#include "engine/llama/rotary.h"
#include "engine/workspace.h"

namespace lora::engine {

/// What a layer keeps from forward to backward. RMSNorm and SwiGLU are recomputed.
struct LayerState {
  at::Tensor x;          ///< [rows, hidden], the input
  at::Tensor q, k, v;    ///< rotated, heads layout
  at::Tensor attention;  ///< [rows, heads * dim], before the output projection
  at::Tensor middle;     ///< [rows, hidden], x + attention block
  at::Tensor gate, up;   ///< [rows, intermediate]; consumed by backward
  BranchProducts q_products, k_products, v_products, o_products, gate_products, up_products,
      down_products;
};

/// Shared by all layers of a pass.
struct LayerContext {
  const DecoderConfig& config;
  const RotaryTable& rotary;
  Workspace& workspace;
  Pass pass;
  std::int64_t batch = 0, time = 0;
  const std::uint8_t* key_mask = nullptr;  ///< [batch, time]; null: all present

  std::int64_t rows() const { return batch * time; }
  HeadShape query_shape() const;
  HeadShape key_shape() const;
};

/// out [rows, hidden] from state.x; fills the rest of `state`.
void layer_forward(const LlamaLayer& layer, const LayerContext& context, LayerState& state,
                   at::Tensor& out);

/// Turns g [rows, hidden], the gradient of the layer's output, into that of its input, and adds to
/// the gradients of what is trainable. With `input_gradient` false the layer is the lowest of
/// interest: g is left undefined and nothing is computed that only layers below would need.
void layer_backward(const LlamaLayer& layer, const LayerContext& context, LayerState& state,
                    at::Tensor& g, bool input_gradient);

/// gradient += sum over rows of g * x / rms(x).
void add_norm_weight_gradient(const at::Tensor& g, const at::Tensor& x, double eps,
                              const at::Tensor& gradient);

}  // namespace lora::engine
