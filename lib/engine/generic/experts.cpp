#include "engine/generic/experts.h"

#include <ATen/ops/index_add.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros_like.h>

#include <tuple>

#include "engine/generic/layers.h"
#include "engine/generic/quantised_linear.h"

namespace lora::engine {

FeedForward make_feed_forward(LayerStore& store, const DecoderConfig& config,
                              const std::string& path, std::int64_t inner) {
  FeedForward block;
  const std::int64_t hidden = config.hidden_size;
  if (config.has_fused_projections) {
    block.gate_up = &store.linear(path + "gate_up_proj", hidden, 2 * inner, config.mlp_bias);
  } else {
    block.gate = &store.linear(path + "gate_proj", hidden, inner, config.mlp_bias);
    block.up = &store.linear(path + "up_proj", hidden, inner, config.mlp_bias);
  }
  block.down = &store.linear(path + "down_proj", inner, hidden, config.mlp_bias);
  return block;
}

at::Tensor apply_feed_forward(const FeedForward& block, const std::string& activation,
                              const at::Tensor& x, const Pass& pass) {
  at::Tensor gate, up;
  if (block.gate_up != nullptr) {
    const at::Tensor both = apply_dense(*block.gate_up, x, pass);
    const std::int64_t inner = both.size(-1) / 2;
    gate = both.narrow(-1, 0, inner);
    up = both.narrow(-1, inner, inner);
  } else {
    gate = apply_dense(*block.gate, x, pass);
    up = apply_dense(*block.up, x, pass);
  }
  return apply_dense(*block.down, activate(activation, gate).mul(up), pass);
}

ExpertBlock::ExpertBlock(LayerStore& store, const Checkpoint& base, const DecoderConfig& config,
                         const std::string& layer)
    : config_(*config.experts), activation_(config.activation) {
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t inner = config_.intermediate_size;
  ParameterSource& source = store.source();
  const std::string old_path = layer + ".block_sparse_moe.";
  const bool is_old = base.find(old_path + "gate.weight") != nullptr;
  const std::string path = is_old ? old_path : layer + ".mlp.";
  router_ = &source.add(path + "gate.weight", {config_.count, hidden});
  const std::string stacked = path + "experts.gate_up_proj";
  if (base.find(stacked) != nullptr) {
    const Parameter& both = source.add_matrix(stacked, {config_.count, 2 * inner, hidden});
    const Parameter& down =
        source.add_matrix(path + "experts.down_proj", {config_.count, hidden, inner});
    const bool is_complete = !whole(both).is_missing() && !whole(down).is_missing();
    for (std::int64_t i = 0; is_complete && i < config_.count; ++i)
      experts_.push_back(
          {part(both, i, 0, inner), part(both, i, inner, inner), part(down, i, 0, hidden)});
  } else {
    for (std::int64_t i = 0; i < config_.count; ++i) {
      const std::string expert = path + "experts." + std::to_string(i);
      const auto matrix = [&](const char* name, const char* old_name, std::int64_t rows,
                              std::int64_t columns) {
        return whole(
            source.add_matrix(expert + (is_old ? old_name : name) + ".weight", {rows, columns}));
      };
      const Matrix gate = matrix(".gate_proj", ".w1", inner, hidden);
      const Matrix up = matrix(".up_proj", ".w3", inner, hidden);
      experts_.push_back({gate, up, matrix(".down_proj", ".w2", hidden, inner)});
    }
  }
  if (config_.shared_intermediate_size == 0) return;
  shared_ =
      make_feed_forward(store, config, path + "shared_expert.", config_.shared_intermediate_size);
  shared_gate_ = &store.linear(path + "shared_expert_gate", hidden, 1, false);
}

ExpertBlock::Matrix ExpertBlock::whole(const Parameter& parameter) {
  return {parameter.base, parameter.quantised};
}

ExpertBlock::Matrix ExpertBlock::part(const Parameter& stack, std::int64_t expert,
                                      std::int64_t begin, std::int64_t rows) {
  if (stack.quantised) return {{}, stack.quantised->narrow(expert * stack.shape[1] + begin, rows)};
  return {stack.base[expert].narrow(0, begin, rows), std::nullopt};
}

at::Tensor ExpertBlock::product(const at::Tensor& x, const Matrix& weight) {
  return weight.quantised ? quantised_linear(x, *weight.quantised)
                          : at::linear(x, weight.base.to(at::kFloat));
}

at::Tensor ExpertBlock::routed(const at::Tensor& rows, const Pass& pass) const {
  const at::Tensor scores =
      at::softmax(product(rows, {router_->value(pass.with_adapters), std::nullopt}), -1);
  auto [weights, chosen] = at::topk(scores, config_.per_token, -1);
  if (config_.normalizes_weights) weights = weights.div(weights.sum(-1, true));
  at::Tensor out = at::zeros_like(rows);
  const at::Tensor flat_weights = weights.reshape({-1});
  for (std::size_t i = 0; i < experts_.size(); ++i) {
    // Row by row: which token, and which of its choices.
    const at::Tensor places =
        at::nonzero(chosen.reshape({-1}).eq(static_cast<std::int64_t>(i))).squeeze(1);
    if (places.numel() == 0) continue;
    const at::Tensor tokens = places.floor_divide(config_.per_token);
    const at::Tensor x = rows.index_select(0, tokens);
    const Expert& expert = experts_[i];
    const at::Tensor inner =
        activate(activation_, product(x, expert.gate)).mul(product(x, expert.up));
    out = at::index_add(
        out, 0, tokens,
        product(inner, expert.down).mul(flat_weights.index_select(0, places).unsqueeze(1)));
  }
  return out;
}

at::Tensor ExpertBlock::apply(const at::Tensor& x, const Pass& pass) const {
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  at::Tensor out = routed(rows, pass);
  if (shared_gate_ != nullptr)
    out = out.add(at::sigmoid(apply_dense(*shared_gate_, rows, pass))
                      .mul(apply_feed_forward(shared_, activation_, rows, pass)));
  return out.view(x.sizes());
}

}  // namespace lora::engine
