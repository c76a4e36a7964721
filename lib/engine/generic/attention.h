// Softmax attention that LibTorch differentiates.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/generic/network.h"

namespace lora::engine {

struct AttentionSettings {
  double scale = 1;
  bool is_causal = false;
  std::int64_t window = 0;  ///< a position sees itself and window - 1 before it; 0: all
  double softcap = 0;       ///< scores become cap * tanh(score / cap); 0: as they are
  double dropout = 0;       ///< of the weights, in training
  std::uint64_t stream = 0;
};

/// [batch, time, heads * dim] -> [batch, heads, time, dim].
at::Tensor to_heads(const at::Tensor& x, std::int64_t heads);

/// [batch, time, heads * dim] from q, k, v [batch, heads, time, dim].
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const AttentionSettings& settings, const SequencePass& pass);

/// Bool [time, time]: true where a position may look.
at::Tensor causal_mask(std::int64_t time);

}  // namespace lora::engine
