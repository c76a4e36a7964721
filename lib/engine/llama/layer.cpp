#include "engine/llama/layer.h"

#include "engine/llama/attention.h"
#include "engine/llama/passes.h"

namespace lora::engine {
namespace {

Gate gate_of(const DecoderConfig& config) {
  return config.activation == "silu" ? Gate::silu : Gate::gelu_tanh;
}

// What a block reads: its input, normed where the family does.
at::Tensor block_input(const Parameter* norm, const at::Tensor& x, const LayerContext& context) {
  if (norm == nullptr && context.storage == x.scalar_type()) return x;
  at::Tensor out = context.scratch(Slot::norm, x.sizes());
  if (norm == nullptr)
    scale_into(x, 1, out);
  else
    norm_forward(x, context.norm_weight(*norm), out);
  return out;
}

// out = residual + multiplier * norm(linear(input)). The norm's input is kept in `unnormed`.
void finish_block(const Linear& linear, const at::Tensor& input, BranchProducts& products,
                  const Parameter* norm, at::Tensor& unnormed, const at::Tensor& residual,
                  const LayerContext& context, at::Tensor& out) {
  if (norm != nullptr) ensure(unnormed, residual.sizes(), context.storage);
  at::Tensor y = norm != nullptr ? unnormed : context.scratch(Slot::block, residual.sizes());
  linear.forward(input, y, context.pass, context.workspace, &products);
  if (norm != nullptr) {
    norm_forward(y, context.norm_weight(*norm), out);
    if (context.config.residual_multiplier != 1) out.mul_(context.config.residual_multiplier);
    out.add_(residual);
  } else {
    add_scaled(residual, y, context.config.residual_multiplier, out);
  }
}

// The gradient of the block's last linear layer, for the gradient g of the residual sum.
at::Tensor block_gradient(const Parameter* norm, const at::Tensor& unnormed, const at::Tensor& g,
                          const LayerContext& context) {
  const double multiplier = context.config.residual_multiplier;
  if (norm == nullptr && multiplier == 1 && context.storage == g.scalar_type()) return g;
  at::Tensor out = context.scratch(Slot::block_gradient, g.sizes());
  if (norm == nullptr) {
    scale_into(g, multiplier, out);
    return out;
  }
  if (norm->is_trainable())
    add_norm_weight_gradient(g, unnormed, context.config.rms_norm_eps, multiplier, norm->gradient);
  norm_backward(g, unnormed, context.norm_weight(*norm), false, out);
  if (multiplier != 1) out.mul_(multiplier);
  return out;
}

// Takes dx, the gradient of block_input, through the norm; g += that of x unless g is null.
void input_backward(const Parameter* norm, const at::Tensor& dx, const at::Tensor& x,
                    const LayerContext& context, at::Tensor* g) {
  if (norm != nullptr && norm->is_trainable())
    add_norm_weight_gradient(dx, x, context.config.rms_norm_eps, 1, norm->gradient);
  if (g == nullptr) return;
  if (norm == nullptr)
    add_scaled(*g, dx, 1, *g);
  else
    norm_backward(dx, x, context.norm_weight(*norm), true, *g);
}

struct HeadPart {
  HeadShape shape;
  const Parameter* norm;
  Rotation rotation;
};

// Of queries, keys and values.
std::array<HeadPart, 3> head_parts(const LlamaLayer& layer, const LayerContext& context) {
  const Rotation& rotation = context.sight(layer).rotation;
  return {{{context.query_shape(), layer.q_norm, rotation},
           {context.key_shape(), layer.k_norm, rotation},
           {context.key_shape(), nullptr, {}}}};
}

void project_heads(const LlamaLayer& layer, const LayerContext& context, const at::Tensor& x,
                   LayerState& state) {
  const SplitLinear& qkv = layer.qkv;
  const auto run = [&](std::size_t i, at::Tensor& rows) {
    qkv.linears()[i].forward(x, rows, context.pass, context.workspace, &state.qkv_products[i]);
  };
  at::Tensor all;
  if (qkv.is_fused()) {
    all = context.scratch(Slot::rows, {x.size(0), qkv.total()});
    run(0, all);
  }
  const std::array<HeadPart, 3> parts = head_parts(layer, context);
  const std::array<at::Tensor*, 3> heads{&state.q, &state.k, &state.v};
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const HeadShape& shape = parts[i].shape;
    const std::array<std::int64_t, 2> sizes{x.size(0), qkv.width(i)};
    at::Tensor rows;
    if (qkv.is_fused()) {
      rows = qkv.slice(all, i);
    } else if (parts[i].norm != nullptr) {
      ensure(state.unnormed[i], sizes, context.storage);
      run(i, state.unnormed[i]);
      rows = context.scratch(Slot::rows, sizes);
      norm_forward(state.unnormed[i], context.norm_weight(*parts[i].norm), rows);
    } else {
      rows = context.scratch(Slot::rows, sizes);
      run(i, rows);
    }
    ensure(*heads[i], {shape.batch, shape.kv_heads, shape.time, shape.group, shape.dim},
           context.storage);
    rows_to_heads(rows, shape, parts[i].rotation, *heads[i]);
  }
}

// dx, unless null, receives the gradient of x from those of the heads.
void project_heads_backward(const LlamaLayer& layer, const LayerContext& context,
                            const at::Tensor& x, const std::array<at::Tensor, 3>& gradients,
                            LayerState& state, at::Tensor* dx) {
  const SplitLinear& qkv = layer.qkv;
  const auto run = [&](std::size_t i, const at::Tensor& rows) {
    qkv.linears()[i].backward(x, rows, state.qkv_products[i], context.pass, context.workspace, dx,
                              i > 0);
  };
  at::Tensor all;
  if (qkv.is_fused()) all = context.scratch(Slot::rows, {x.size(0), qkv.total()});
  const std::array<HeadPart, 3> parts = head_parts(layer, context);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    at::Tensor rows =
        qkv.is_fused() ? qkv.slice(all, i) : context.scratch(Slot::rows, {x.size(0), qkv.width(i)});
    heads_to_rows(gradients[i], parts[i].shape, parts[i].rotation, rows);
    if (const Parameter* norm = parts[i].norm; norm != nullptr) {
      if (norm->is_trainable())
        add_norm_weight_gradient(rows, state.unnormed[i], context.config.rms_norm_eps, 1,
                                 norm->gradient);
      norm_backward(rows, state.unnormed[i], context.norm_weight(*norm), false, rows);
    }
    if (!qkv.is_fused()) run(i, rows);
  }
  if (qkv.is_fused()) run(0, all);
}

AttentionInput attention_input(const LlamaLayer& layer, const LayerContext& context,
                               const LayerState& state) {
  return {context.query_shape(),
          context.score_rule(),
          state.q,
          state.k,
          state.v,
          context.key_mask,
          context.sight(layer).first_visible};
}

void attention_block(const LlamaLayer& layer, const LayerContext& context, LayerState& state) {
  project_heads(layer, context, block_input(layer.attention_before, state.x, context), state);
  at::Tensor heads = context.scratch(Slot::queries_gradient, state.q.sizes());
  if (context.cache != nullptr) context.cache->store(layer.index, state.k, state.v);
  if (context.cache != nullptr && context.cache->length > 0)
    context.cache->attend(layer.index, state.q, context.query_shape(), context.score_rule(),
                          context.sight(layer).window, heads);
  else
    attention(attention_input(layer, context, state), heads);
  ensure(state.attention, {context.rows(), layer.o.inputs()}, context.storage);
  heads_to_rows(heads, context.query_shape(), {}, state.attention);
  ensure(state.middle, state.x.sizes());
  finish_block(layer.o, state.attention, state.o_products, layer.attention_behind,
               state.attention_out, state.x, context, state.middle);
}

void attention_block_backward(const LlamaLayer& layer, const LayerContext& context,
                              LayerState& state, at::Tensor& g, bool input_gradient) {
  const HeadShape queries = context.query_shape();
  const at::Tensor upstream =
      block_gradient(layer.attention_behind, state.attention_out, g, context);
  at::Tensor rows = context.scratch(Slot::activation_gradient, state.attention.sizes());
  layer.o.backward(state.attention, upstream, state.o_products, context.pass, context.workspace,
                   &rows, false);
  at::Tensor heads = context.scratch(Slot::head_gradient, state.q.sizes());
  rows_to_heads(rows, queries, {}, heads);
  std::array<at::Tensor, 3> gradients{context.scratch(Slot::queries_gradient, state.q.sizes()),
                                      context.scratch(Slot::keys_gradient, state.k.sizes()),
                                      context.scratch(Slot::values_gradient, state.v.sizes())};
  attention_backward(attention_input(layer, context, state), heads, gradients[0], gradients[1],
                     gradients[2]);
  const at::Tensor x = block_input(layer.attention_before, state.x, context);
  const bool inner = input_gradient ||
                     (layer.attention_before != nullptr && layer.attention_before->is_trainable());
  at::Tensor dx = context.scratch(Slot::norm_gradient, x.sizes());
  project_heads_backward(layer, context, x, gradients, state, inner ? &dx : nullptr);
  if (inner)
    input_backward(layer.attention_before, dx, state.x, context, input_gradient ? &g : nullptr);
}

// Gate and up [rows, intermediate].
std::array<at::Tensor, 2> gate_and_up(const SplitLinear& split, const LayerState& state) {
  if (!split.is_fused()) return state.gate_up;
  return {split.slice(state.gate_up[0], 0), split.slice(state.gate_up[0], 1)};
}

at::Tensor activated(const LlamaLayer& layer, const LayerContext& context,
                     const LayerState& state) {
  const auto [gate, up] = gate_and_up(layer.gate_up, state);
  at::Tensor out = context.scratch(Slot::activation, gate.sizes());
  gate_forward(gate_of(context.config), gate, up, out);
  return out;
}

void mlp_block(const LlamaLayer& layer, const LayerContext& context, LayerState& state,
               at::Tensor& out) {
  const std::vector<Linear>& linears = layer.gate_up.linears();
  const at::Tensor x = block_input(layer.mlp_before, state.middle, context);
  for (std::size_t i = 0; i < linears.size(); ++i) {
    ensure(state.gate_up[i], {x.size(0), linears[i].outputs()}, context.storage);
    linears[i].forward(x, state.gate_up[i], context.pass, context.workspace,
                       &state.gate_up_products[i]);
  }
  finish_block(layer.down, activated(layer, context, state), state.down_products, layer.mlp_behind,
               state.mlp_out, state.middle, context, out);
}

void mlp_block_backward(const LlamaLayer& layer, const LayerContext& context, LayerState& state,
                        at::Tensor& g, bool input_gradient) {
  const bool inner =
      input_gradient || (layer.mlp_before != nullptr && layer.mlp_before->is_trainable());
  if (!inner && !layer.has_trainable_mlp()) return;
  auto [gate, up] = gate_and_up(layer.gate_up, state);
  const at::Tensor upstream = block_gradient(layer.mlp_behind, state.mlp_out, g, context);
  at::Tensor d_activated = context.scratch(Slot::activation_gradient, gate.sizes());
  layer.down.backward(activated(layer, context, state), upstream, state.down_products, context.pass,
                      context.workspace, &d_activated, false);
  gate_backward(gate_of(context.config), d_activated, gate, up);
  const at::Tensor x = block_input(layer.mlp_before, state.middle, context);
  at::Tensor dx = context.scratch(Slot::norm_gradient, x.sizes());
  const std::vector<Linear>& linears = layer.gate_up.linears();
  for (std::size_t i = 0; i < linears.size(); ++i)
    linears[i].backward(x, state.gate_up[i], state.gate_up_products[i], context.pass,
                        context.workspace, inner ? &dx : nullptr, i > 0);
  if (inner)
    input_backward(layer.mlp_before, dx, state.middle, context, input_gradient ? &g : nullptr);
}

}  // namespace

HeadShape LayerContext::query_shape() const {
  return {batch, time, config.num_kv_heads, config.num_heads / config.num_kv_heads,
          config.head_dim};
}

HeadShape LayerContext::key_shape() const {
  return {batch, time, config.num_kv_heads, 1, config.head_dim};
}

ScoreRule LayerContext::score_rule() const {
  return {static_cast<float>(config.attention_scale), static_cast<float>(config.attention_softcap)};
}

NormWeight LayerContext::norm_weight(const Parameter& parameter) const {
  const at::Tensor& values = parameter.value(pass.with_adapters);
  return {values.const_data_ptr<float>(), values.numel(), config.norm_adds_one ? 1.0F : 0.0F,
          static_cast<float>(config.rms_norm_eps)};
}

void layer_forward(const LlamaLayer& layer, const LayerContext& context, LayerState& state,
                   at::Tensor& out) {
  attention_block(layer, context, state);
  mlp_block(layer, context, state, out);
}

void layer_backward(const LlamaLayer& layer, const LayerContext& context, LayerState& state,
                    at::Tensor& g, bool input_gradient) {
  const bool needs_attention = input_gradient || layer.has_trainable_attention();
  mlp_block_backward(layer, context, state, g, needs_attention);
  if (needs_attention) attention_block_backward(layer, context, state, g, input_gradient);
}

}  // namespace lora::engine
