#include "engine/llama/head.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>

#include <algorithm>

namespace lora::engine {
namespace {

// Wide enough for the product's full speed, narrow enough that the logits stay near the cache.
constexpr std::int64_t kChunk = 256;

at::Tensor final_norm(const LlamaNetwork& network, const LayerContext& context,
                      const at::Tensor& x) {
  at::Tensor out = context.workspace.get(Slot::norm, x.sizes());
  rms_norm(x.const_data_ptr<float>(),
           network.final_norm.value(context.pass.with_adapters).const_data_ptr<float>(),
           context.config.rms_norm_eps, x.size(0), x.size(1), out.mutable_data_ptr<float>());
  return out;
}

at::Tensor index_view(const std::vector<std::int64_t>& indices, std::int64_t begin,
                      std::int64_t count) {
  return at::from_blob(const_cast<std::int64_t*>(indices.data() + begin), {count}, at::kLong);
}

// From the gradient of a chunk's logits to those of its hidden rows x.
void chunk_backward(const LlamaNetwork& network, const LayerContext& context, const at::Tensor& x,
                    const at::Tensor& normed, const at::Tensor& logits_gradient,
                    const BranchProducts& products, at::Tensor* dx) {
  Workspace& workspace = context.workspace;
  const Parameter& norm = network.final_norm;
  const bool needs_norm = dx != nullptr || norm.is_trainable();
  at::Tensor d_normed = workspace.get(Slot::norm_gradient, x.sizes());
  network.head.backward(normed, logits_gradient, products, context.pass, workspace,
                        needs_norm ? &d_normed : nullptr, false);
  if (norm.is_trainable())
    add_norm_weight_gradient(d_normed, x, context.config.rms_norm_eps, norm.gradient);
  if (dx == nullptr) return;
  dx->zero_();
  rms_norm_backward(d_normed.const_data_ptr<float>(), x.const_data_ptr<float>(),
                    norm.value(true).const_data_ptr<float>(), context.config.rms_norm_eps,
                    x.size(0), x.size(1), dx->mutable_data_ptr<float>());
}

}  // namespace

void head_logits(const LlamaNetwork& network, const LayerContext& context, const at::Tensor& hidden,
                 at::Tensor& logits) {
  for (std::int64_t begin = 0; begin < hidden.size(0); begin += kChunk) {
    const std::int64_t count = std::min(kChunk, hidden.size(0) - begin);
    at::Tensor part = logits.narrow(0, begin, count);
    network.head.forward(final_norm(network, context, hidden.narrow(0, begin, count)), part,
                         context.pass, context.workspace);
  }
}

LossSum head_loss(const LlamaNetwork& network, const LayerContext& context,
                  const at::Tensor& hidden, const Supervision& supervision, double gradient_scale,
                  at::Tensor* g) {
  Workspace& workspace = context.workspace;
  const auto total = static_cast<std::int64_t>(supervision.rows.size());
  const std::int64_t width = hidden.size(1);
  if (g != nullptr) g->zero_();
  LossSum result{0, total};
  std::vector<double> losses(static_cast<std::size_t>(std::min(kChunk, total)));
  BranchProducts products;
  for (std::int64_t begin = 0; begin < total; begin += kChunk) {
    const std::int64_t count = std::min(kChunk, total - begin);
    const at::Tensor rows = index_view(supervision.rows, begin, count);
    at::Tensor x = workspace.get(Slot::selected, {count, width});
    at::index_select_out(x, hidden, 0, rows);
    const at::Tensor normed = final_norm(network, context, x);
    at::Tensor logits = workspace.get(Slot::logits, {count, network.head.outputs()});
    network.head.forward(normed, logits, context.pass, workspace, &products);
    cross_entropy(logits.mutable_data_ptr<float>(), supervision.targets.data() + begin, count,
                  logits.size(1), static_cast<float>(gradient_scale), losses.data());
    for (std::int64_t i = 0; i < count; ++i) result.sum += losses[static_cast<std::size_t>(i)];
    if (gradient_scale == 0) continue;
    at::Tensor dx = workspace.get(Slot::selected_gradient, {count, width});
    chunk_backward(network, context, x, normed, logits, products, g == nullptr ? nullptr : &dx);
    if (g != nullptr) g->index_copy_(0, rows, dx);
  }
  return result;
}

}  // namespace lora::engine
