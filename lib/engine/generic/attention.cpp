#include "engine/generic/attention.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>

#include <limits>
#include <optional>

#include "engine/generic/layers.h"

namespace lora::engine {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest();

}  // namespace

at::Tensor to_heads(const at::Tensor& x, std::int64_t heads) {
  return x.view({x.size(0), x.size(1), heads, x.size(2) / heads}).transpose(1, 2);
}

at::Tensor causal_mask(std::int64_t time) {
  return at::full({time, time}, kLowest, at::kFloat).triu(1);
}

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const AttentionSettings& settings, const SequencePass& pass) {
  at::Tensor out;
  if (pass.pass.dropout == nullptr || settings.dropout <= 0) {
    // A causal pass with padding has both in its mask.
    const bool is_causal = settings.is_causal && !pass.mask.defined();
    const std::optional<at::Tensor> mask =
        pass.mask.defined() ? std::optional(pass.mask) : std::nullopt;
    out = at::scaled_dot_product_attention(q, k, v, mask, 0, is_causal, settings.scale);
  } else {
    at::Tensor scores = at::matmul(q, k.transpose(2, 3)).mul(settings.scale);
    if (pass.mask.defined())
      scores = scores.add(pass.mask);
    else if (settings.is_causal)
      scores = scores.add(causal_mask(q.size(2)));
    const at::Tensor weights =
        drop(at::softmax(scores, -1), settings.dropout, settings.stream, pass.pass);
    out = at::matmul(weights, v);
  }
  return out.transpose(1, 2).reshape({q.size(0), q.size(2), q.size(1) * q.size(3)});
}

SequencePass make_pass(const TokenBatch& tokens, const Network& network, const Pass& pass) {
  const auto matrix = [&](const std::vector<std::int64_t>& values) {
    return at::from_blob(const_cast<std::int64_t*>(values.data()), {tokens.batch, tokens.time},
                         at::kLong);
  };
  SequencePass result;
  result.pass = pass;
  result.ids = matrix(tokens.ids);
  if (!tokens.types.empty()) result.token_types = matrix(tokens.types);
  if (tokens.mask.empty()) return result;
  const at::Tensor present = at::from_blob(const_cast<std::uint8_t*>(tokens.mask.data()),
                                           {tokens.batch, 1, 1, tokens.time}, at::kByte);
  result.mask = present.eq(0).to(at::kFloat).mul(kLowest);
  if (network.is_causal())
    result.mask = result.mask.add(causal_mask(tokens.time)).clamp_min(kLowest);
  return result;
}

}  // namespace lora::engine
