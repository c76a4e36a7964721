// Causal attention with grouped key heads, forward and backward.
//
// Queries are taken in blocks that see only the keys from their first visible one up to their last
// position, so neither the upper half of the score matrix nor what lies outside windows and
// documents is computed; the backward pass recomputes the probabilities of a block instead of
// keeping them.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/kernels/kernels.h"

namespace lora::engine {

struct AttentionInput {
  HeadShape shape;  ///< of the queries; keys and values have group 1
  ScoreRule rule;
  at::Tensor q, k, v;                      ///< "heads" layout of kernels.h
  const std::uint8_t* key_mask = nullptr;  ///< [batch, time], null: all present
  /// [batch, time]: first key that a position sees, never falling along a row; null: 0.
  const std::int32_t* first_visible = nullptr;
};

/// out (heads layout, like q) = softmax(rule(q k^T)) v.
void attention(const AttentionInput& input, at::Tensor& out);

/// dq, dk, dv for the gradient g of attention's output, all in heads layout.
void attention_backward(const AttentionInput& input, const at::Tensor& g, at::Tensor& dq,
                        at::Tensor& dk, at::Tensor& dv);

}  // namespace lora::engine
