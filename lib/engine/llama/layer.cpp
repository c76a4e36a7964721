#include "engine/llama/layer.h"

#include <ATen/ops/add.h>
#include <ATen/ops/rsqrt.h>

#include "engine/llama/attention.h"

namespace lora::engine {
namespace {

at::Tensor normalised(const Parameter& weight, const at::Tensor& x, const LayerContext& context) {
  at::Tensor out = context.workspace.get(Slot::norm, x.sizes());
  rms_norm(x.const_data_ptr<float>(),
           weight.value(context.pass.with_adapters).const_data_ptr<float>(),
           context.config.rms_norm_eps, x.size(0), x.size(1), out.mutable_data_ptr<float>());
  return out;
}

// dx += gradient through the norm; the weight's own gradient when it is trainable.
void norm_backward(const Parameter& weight, const at::Tensor& g, const at::Tensor& x,
                   const LayerContext& context, at::Tensor* dx) {
  const double eps = context.config.rms_norm_eps;
  if (weight.is_trainable()) add_norm_weight_gradient(g, x, eps, weight.gradient);
  if (dx != nullptr)
    rms_norm_backward(g.const_data_ptr<float>(), x.const_data_ptr<float>(),
                      weight.value(true).const_data_ptr<float>(), eps, x.size(0), x.size(1),
                      dx->mutable_data_ptr<float>());
}

void project(const Linear& linear, const at::Tensor& x, const LayerContext& context,
             const HeadShape& shape, bool is_rotated, at::Tensor& heads, BranchProducts& products) {
  at::Tensor rows = context.workspace.get(Slot::rows, {x.size(0), linear.outputs()});
  linear.forward(x, rows, context.pass, context.workspace, &products);
  ensure(heads, {shape.batch, shape.kv_heads, shape.time, shape.group, shape.dim});
  split_heads(rows.const_data_ptr<float>(), shape, is_rotated ? context.rotary.cos(0) : nullptr,
              is_rotated ? context.rotary.sin(0) : nullptr, heads.mutable_data_ptr<float>());
}

void project_backward(const Linear& linear, const at::Tensor& x, const at::Tensor& heads_gradient,
                      const LayerContext& context, const HeadShape& shape, bool is_rotated,
                      const BranchProducts& products, at::Tensor* dx, bool accumulate) {
  at::Tensor rows = context.workspace.get(Slot::rows, {x.size(0), linear.outputs()});
  merge_heads(heads_gradient.const_data_ptr<float>(), shape,
              is_rotated ? context.rotary.cos(0) : nullptr,
              is_rotated ? context.rotary.sin(0) : nullptr, rows.mutable_data_ptr<float>());
  linear.backward(x, rows, products, context.pass, context.workspace, dx, accumulate);
}

void attention_block(const LlamaLayer& layer, const LayerContext& context, LayerState& state) {
  const HeadShape queries = context.query_shape();
  const HeadShape keys = context.key_shape();
  const at::Tensor x = normalised(*layer.attention_norm, state.x, context);
  project(layer.q, x, context, queries, true, state.q, state.q_products);
  project(layer.k, x, context, keys, true, state.k, state.k_products);
  project(layer.v, x, context, keys, false, state.v, state.v_products);
  at::Tensor heads = context.workspace.get(Slot::queries_gradient, state.q.sizes());
  attention({queries, state.q, state.k, state.v, context.key_mask}, heads);
  ensure(state.attention, {context.rows(), layer.o.inputs()});
  merge_heads(heads.const_data_ptr<float>(), queries, nullptr, nullptr,
              state.attention.mutable_data_ptr<float>());
  ensure(state.middle, state.x.sizes());
  layer.o.forward(state.attention, state.middle, context.pass, context.workspace,
                  &state.o_products);
  state.middle.add_(state.x);
}

at::Tensor activation(const LayerState& state, Workspace& workspace) {
  at::Tensor out = workspace.get(Slot::activation, state.gate.sizes());
  swiglu(state.gate.const_data_ptr<float>(), state.up.const_data_ptr<float>(), out.numel(),
         out.mutable_data_ptr<float>());
  return out;
}

void mlp_backward(const LlamaLayer& layer, const LayerContext& context, LayerState& state,
                  at::Tensor& g, bool input_gradient) {
  Workspace& workspace = context.workspace;
  const bool inner = input_gradient || layer.mlp_norm->is_trainable();
  if (!inner && !layer.has_trainable_mlp()) return;
  at::Tensor d_activation = workspace.get(Slot::activation_gradient, state.gate.sizes());
  layer.down.backward(activation(state, workspace), g, state.down_products, context.pass, workspace,
                      &d_activation, false);
  swiglu_backward(d_activation.const_data_ptr<float>(), state.gate.numel(),
                  state.gate.mutable_data_ptr<float>(), state.up.mutable_data_ptr<float>());
  const at::Tensor x = normalised(*layer.mlp_norm, state.middle, context);
  at::Tensor dx = workspace.get(Slot::norm_gradient, x.sizes());
  at::Tensor* target = inner ? &dx : nullptr;
  layer.gate.backward(x, state.gate, state.gate_products, context.pass, workspace, target, false);
  layer.up.backward(x, state.up, state.up_products, context.pass, workspace, target, true);
  if (inner)
    norm_backward(*layer.mlp_norm, dx, state.middle, context, input_gradient ? &g : nullptr);
}

void attention_block_backward(const LlamaLayer& layer, const LayerContext& context,
                              LayerState& state, at::Tensor& g, bool input_gradient) {
  Workspace& workspace = context.workspace;
  const HeadShape queries = context.query_shape();
  const HeadShape keys = context.key_shape();
  at::Tensor rows = workspace.get(Slot::activation_gradient, state.attention.sizes());
  layer.o.backward(state.attention, g, state.o_products, context.pass, workspace, &rows, false);
  at::Tensor d_heads = workspace.get(Slot::head_gradient, state.q.sizes());
  split_heads(rows.const_data_ptr<float>(), queries, nullptr, nullptr,
              d_heads.mutable_data_ptr<float>());
  at::Tensor dq = workspace.get(Slot::queries_gradient, state.q.sizes());
  at::Tensor dk = workspace.get(Slot::keys_gradient, state.k.sizes());
  at::Tensor dv = workspace.get(Slot::values_gradient, state.v.sizes());
  attention_backward({queries, state.q, state.k, state.v, context.key_mask}, d_heads, dq, dk, dv);
  const at::Tensor x = normalised(*layer.attention_norm, state.x, context);
  const bool inner = input_gradient || layer.attention_norm->is_trainable();
  at::Tensor dx = workspace.get(Slot::norm_gradient, x.sizes());
  at::Tensor* target = inner ? &dx : nullptr;
  project_backward(layer.q, x, dq, context, queries, true, state.q_products, target, false);
  project_backward(layer.k, x, dk, context, keys, true, state.k_products, target, true);
  project_backward(layer.v, x, dv, context, keys, false, state.v_products, target, true);
  if (inner)
    norm_backward(*layer.attention_norm, dx, state.x, context, input_gradient ? &g : nullptr);
}

}  // namespace

HeadShape LayerContext::query_shape() const {
  return {batch, time, config.num_kv_heads, config.num_heads / config.num_kv_heads,
          config.head_dim};
}

HeadShape LayerContext::key_shape() const {
  return {batch, time, config.num_kv_heads, 1, config.head_dim};
}

void layer_forward(const LlamaLayer& layer, const LayerContext& context, LayerState& state,
                   at::Tensor& out) {
  attention_block(layer, context, state);
  const at::Tensor x = normalised(*layer.mlp_norm, state.middle, context);
  ensure(state.gate, {x.size(0), layer.gate.outputs()});
  ensure(state.up, state.gate.sizes());
  layer.gate.forward(x, state.gate, context.pass, context.workspace, &state.gate_products);
  layer.up.forward(x, state.up, context.pass, context.workspace, &state.up_products);
  layer.down.forward(activation(state, context.workspace), out, context.pass, context.workspace,
                     &state.down_products);
  out.add_(state.middle);
}

void layer_backward(const LlamaLayer& layer, const LayerContext& context, LayerState& state,
                    at::Tensor& g, bool input_gradient) {
  const bool needs_attention = input_gradient || layer.has_trainable_attention();
  mlp_backward(layer, context, state, g, needs_attention);
  if (needs_attention) attention_block_backward(layer, context, state, g, input_gradient);
}

void add_norm_weight_gradient(const at::Tensor& g, const at::Tensor& x, double eps,
                              const at::Tensor& gradient) {
  const at::Tensor inverse = x.square().mean(1, true).add(eps).rsqrt();
  gradient.add_(x.mul(inverse).mul(g).sum(0));
}

}  // namespace lora::engine
