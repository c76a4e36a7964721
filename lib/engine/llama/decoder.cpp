#include "engine/llama/decoder.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>

#include <cmath>

#include "engine/kernels/kernels.h"
#include "engine/llama/head.h"

namespace lora::engine {
namespace {

at::Tensor normalised(const Parameter& weight, const at::Tensor& x, const LayerContext& context) {
  at::Tensor out = context.workspace.get(Slot::norm, x.sizes());
  rms_norm(x.const_data_ptr<float>(),
           weight.value(context.pass.with_adapters).const_data_ptr<float>(),
           context.config.rms_norm_eps, 1, x.size(1), out.mutable_data_ptr<float>());
  return out;
}

at::Tensor apply(const Linear& linear, const at::Tensor& x, const LayerContext& context,
                 Slot slot) {
  at::Tensor out = context.workspace.get(slot, {1, linear.outputs()});
  linear.forward(x, out, context.pass, context.workspace);
  return out;
}

void append(const at::Tensor& rows, const LayerContext& context, std::int64_t position,
            bool is_rotated, at::Tensor& cache) {
  at::Tensor heads = context.workspace.get(Slot::keys_gradient,
                                           {context.config.num_kv_heads, context.config.head_dim});
  split_heads(rows.const_data_ptr<float>(), context.key_shape(),
              is_rotated ? context.rotary.cos(position) : nullptr,
              is_rotated ? context.rotary.sin(position) : nullptr, heads.mutable_data_ptr<float>());
  cache.select(1, position).copy_(heads);
}

void decode_layer(const LlamaLayer& layer, const LayerContext& context, std::int64_t position,
                  std::int64_t capacity, at::Tensor& keys, at::Tensor& values, at::Tensor& x) {
  const HeadShape shape = context.query_shape();
  at::Tensor normed = normalised(*layer.attention_norm, x, context);
  append(apply(layer.k, normed, context, Slot::rows), context, position, true, keys);
  append(apply(layer.v, normed, context, Slot::rows), context, position, false, values);
  const at::Tensor rows = apply(layer.q, normed, context, Slot::rows);
  at::Tensor q = context.workspace.get(Slot::queries_gradient, rows.sizes());
  split_heads(rows.const_data_ptr<float>(), shape, context.rotary.cos(position),
              context.rotary.sin(position), q.mutable_data_ptr<float>());
  at::Tensor attended = context.workspace.get(Slot::head_gradient, rows.sizes());
  cached_attention(q.const_data_ptr<float>(), keys.const_data_ptr<float>(),
                   values.const_data_ptr<float>(), shape, capacity, position + 1,
                   1.0F / std::sqrt(static_cast<float>(shape.dim)),
                   attended.mutable_data_ptr<float>());
  x.add_(apply(layer.o, attended, context, Slot::rows));

  normed = normalised(*layer.mlp_norm, x, context);
  const at::Tensor gate = apply(layer.gate, normed, context, Slot::activation);
  const at::Tensor up = apply(layer.up, normed, context, Slot::activation_gradient);
  swiglu(gate.const_data_ptr<float>(), up.const_data_ptr<float>(), gate.numel(),
         gate.mutable_data_ptr<float>());
  x.add_(apply(layer.down, gate, context, Slot::rows));
}

}  // namespace

KeyValueCache::KeyValueCache(const DecoderConfig& config, std::int64_t positions)
    : capacity(positions) {
  for (std::int64_t i = 0; i < config.num_layers; ++i) {
    keys.push_back(at::empty({config.num_kv_heads, positions, config.head_dim}, at::kFloat));
    values.push_back(at::empty({config.num_kv_heads, positions, config.head_dim}, at::kFloat));
  }
}

void KeyValueCache::store(std::size_t layer, const LayerState& state) {
  const std::int64_t time = state.k.size(2);
  keys[layer].narrow(1, 0, time).copy_(state.k.view({-1, time, state.k.size(4)}));
  values[layer].narrow(1, 0, time).copy_(state.v.view({-1, time, state.v.size(4)}));
}

void embed(const LlamaNetwork& network, const Pass& pass, const std::vector<std::int64_t>& ids,
           at::Tensor& x) {
  const auto count = static_cast<std::int64_t>(ids.size());
  ensure(x, {count, network.config().hidden_size});
  const at::Tensor index = at::from_blob(const_cast<std::int64_t*>(ids.data()), {count}, at::kLong);
  x.copy_(at::index_select(network.embedding.value(pass.with_adapters), 0, index));
}

void decode_token(const LlamaNetwork& network, const LayerContext& context, std::int64_t token,
                  KeyValueCache& cache, at::Tensor& logits) {
  at::Tensor x;
  embed(network, context.pass, {token}, x);
  for (std::size_t i = 0; i < network.layers.size(); ++i)
    decode_layer(network.layers[i], context, cache.length, cache.capacity, cache.keys[i],
                 cache.values[i], x);
  head_logits(network, context, x, logits);
  ++cache.length;
}

}  // namespace lora::engine
