#include "engine/generic/attention.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>

#include <limits>
#include <optional>

#include "engine/generic/layers.h"

namespace lora::engine {
namespace {

// What attention may look at; none where causality alone, or nothing, hides positions. A causal
// pass with padding has both in its mask.
std::optional<at::Tensor> mask_of(const AttentionSettings& settings, const SequencePass& pass,
                                  std::int64_t time) {
  if (settings.window == 0 || settings.window >= time)
    return pass.mask.defined() ? std::optional(pass.mask) : std::nullopt;
  const at::Tensor mask = pass.mask.defined() ? pass.mask : causal_mask(time);
  return mask.logical_and(at::ones({time, time}, at::kBool).triu(1 - settings.window));
}

}  // namespace

at::Tensor to_heads(const at::Tensor& x, std::int64_t heads) {
  return x.view({x.size(0), x.size(1), heads, x.size(2) / heads}).transpose(1, 2);
}

at::Tensor causal_mask(std::int64_t time) { return at::ones({time, time}, at::kBool).tril(); }

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const AttentionSettings& settings, const SequencePass& pass) {
  const std::optional<at::Tensor> mask = mask_of(settings, pass, q.size(2));
  const bool drops = pass.pass.dropout != nullptr && settings.dropout > 0;
  at::Tensor out;
  if (!drops && settings.softcap == 0) {
    out = at::scaled_dot_product_attention(q, k, v, mask, 0, settings.is_causal && !mask,
                                           settings.scale);
  } else {
    at::Tensor scores = at::matmul(q, k.transpose(2, 3)).mul(settings.scale);
    if (settings.softcap != 0)
      scores = at::tanh(scores.div(settings.softcap)).mul(settings.softcap);
    // The lowest float, not an infinity: a row that sees nothing must not turn into NaN.
    if (mask || settings.is_causal)
      scores = scores.masked_fill((mask ? *mask : causal_mask(q.size(2))).logical_not(),
                                  std::numeric_limits<float>::lowest());
    const at::Tensor weights =
        drop(at::softmax(scores, -1), settings.dropout, settings.stream, pass.pass);
    out = at::matmul(weights, v);
  }
  return out.transpose(1, 2).reshape({q.size(0), q.size(2), q.size(1) * q.size(3)});
}

namespace {

// Where documents share rows: position in the document, and who is of one document.
void separate_documents(SequencePass& result, const TokenBatch& tokens) {
  const at::Tensor starts = at::from_blob(const_cast<std::int32_t*>(tokens.starts.data()),
                                          {tokens.batch, tokens.time}, at::kInt)
                                .to(at::kLong);
  result.positions = at::arange(tokens.time, at::kLong).sub(starts);
  const at::Tensor is_same = starts.unsqueeze(2).eq(starts.unsqueeze(1)).unsqueeze(1);
  result.mask = result.mask.defined() ? result.mask.logical_and(is_same) : is_same;
}

}  // namespace

SequencePass make_pass(const TokenBatch& tokens, const Network& network, const Pass& pass) {
  const auto matrix = [&](const std::vector<std::int64_t>& values) {
    return at::from_blob(const_cast<std::int64_t*>(values.data()), {tokens.batch, tokens.time},
                         at::kLong);
  };
  SequencePass result;
  result.pass = pass;
  result.ids = matrix(tokens.ids);
  if (!tokens.types.empty()) result.token_types = matrix(tokens.types);
  result.longest = longest_document(tokens);
  if (!tokens.mask.empty()) {
    const at::Tensor present = at::from_blob(const_cast<std::uint8_t*>(tokens.mask.data()),
                                             {tokens.batch, 1, 1, tokens.time}, at::kByte);
    result.mask = present.ne(0);
  }
  if (!tokens.starts.empty()) separate_documents(result, tokens);
  if (result.mask.defined() && network.is_causal())
    result.mask = result.mask.logical_and(causal_mask(tokens.time));
  return result;
}

}  // namespace lora::engine
