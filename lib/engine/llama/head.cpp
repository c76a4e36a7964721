#include "engine/llama/head.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>

#include <algorithm>

#include "engine/llama/passes.h"

namespace lora::engine {
namespace {

// Wide enough for the product's full speed, narrow enough that the logits stay near the cache.
constexpr std::int64_t kChunk = 256;

at::Tensor final_norm(const LlamaNetwork& network, const LayerContext& context,
                      const at::Tensor& x) {
  at::Tensor out = context.scratch(Slot::norm, x.sizes());
  norm_forward(x, context.norm_weight(network.final_norm), out);
  return out;
}

// From what the head gives to logits.
void finish_logits(const DecoderConfig& config, at::Tensor& logits) {
  if (config.logits_divisor != 1) logits.div_(config.logits_divisor);
  if (config.logits_softcap != 0)
    soft_cap(static_cast<float>(config.logits_softcap), logits.numel(),
             logits.mutable_data_ptr<float>());
}

// From the gradient of finished logits to that of what the head gave.
void finish_backward(const DecoderConfig& config, const at::Tensor& capped, at::Tensor& g) {
  if (config.logits_softcap != 0)
    soft_cap_backward(static_cast<float>(config.logits_softcap), capped.const_data_ptr<float>(),
                      g.numel(), g.mutable_data_ptr<float>());
  if (config.logits_divisor != 1) g.div_(config.logits_divisor);
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
  at::Tensor d_normed = context.scratch(Slot::norm_gradient, x.sizes());
  network.head.backward(normed, logits_gradient, products, context.pass, workspace,
                        needs_norm ? &d_normed : nullptr, false);
  if (norm.is_trainable())
    add_norm_weight_gradient(d_normed, x, context.config.rms_norm_eps, 1, norm.gradient);
  if (dx != nullptr) norm_backward(d_normed, x, context.norm_weight(norm), false, *dx);
}

}  // namespace

void head_logits(const LlamaNetwork& network, const LayerContext& context, const at::Tensor& hidden,
                 at::Tensor& logits) {
  for (std::int64_t begin = 0; begin < hidden.size(0); begin += kChunk) {
    const std::int64_t count = std::min(kChunk, hidden.size(0) - begin);
    at::Tensor part = logits.narrow(0, begin, count);
    network.head.forward(final_norm(network, context, hidden.narrow(0, begin, count)), part,
                         context.pass, context.workspace);
    finish_logits(context.config, part);
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
  const StepContext* step = context.pass.dropout;  // null: an evaluation
  const LossSettings settings = step != nullptr ? step->loss : LossSettings{};
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
    finish_logits(context.config, logits);
    at::Tensor capped;
    if (context.config.logits_softcap != 0 && gradient_scale != 0) {
      capped = workspace.get(Slot::capped_logits, logits.sizes());
      capped.copy_(logits);
    }
    cross_entropy(logits.mutable_data_ptr<float>(), supervision.targets.data() + begin, count,
                  logits.size(1), static_cast<float>(gradient_scale), losses.data(), settings);
    for (std::int64_t i = 0; i < count; ++i) result.sum += losses[static_cast<std::size_t>(i)];
    if (gradient_scale == 0) continue;
    finish_backward(context.config, capped, logits);
    at::Tensor dx = workspace.get(Slot::selected_gradient, {count, width});
    chunk_backward(network, context, x, normed, logits, products, g == nullptr ? nullptr : &dx);
    if (g != nullptr) g->index_copy_(0, rows, dx);
  }
  return result;
}

}  // namespace lora::engine
