// Softmax attention that LibTorch differentiates.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/generic/network.h"

namespace lora::engine {

struct AttentionSettings {
  double scale = 1;
  bool is_causal = false;
  double dropout = 0;  ///< of the weights, in training
  std::uint64_t stream = 0;
};

/// [batch, time, heads * dim] -> [batch, heads, time, dim].
at::Tensor to_heads(const at::Tensor& x, std::int64_t heads);

/// [batch, time, heads * dim] from q, k, v [batch, heads, time, dim].
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const AttentionSettings& settings, const SequencePass& pass);

/// Added to scores: 0 where attention may look, the lowest float elsewhere (an infinity would turn
/// rows of nothing but padding into NaN). f32 [time, time].
at::Tensor causal_mask(std::int64_t time);

}  // namespace lora::engine
