// Keys and values of the positions so far, for generation.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "engine/kernels/kernels.h"
#include "lora/checkpoint/decoder_config.h"

namespace lora::engine {

/// Per layer f32 [kv_heads, capacity, dim], keys rotated.
class KeyValueCache {
 public:
  KeyValueCache(const DecoderConfig& config, std::int64_t capacity);

  /// Takes keys and values (heads layout, batch 1) of the positions from `length` on.
  void store(std::size_t layer, const at::Tensor& k, const at::Tensor& v);
  /// Attention of the position that store() took last, f32 q and out [kv_heads * group, dim];
  /// window 0: it sees all positions.
  void attend(std::size_t layer, const at::Tensor& q, const HeadShape& shape, const ScoreRule& rule,
              std::int64_t window, at::Tensor& out) const;

  std::int64_t length = 0;  ///< positions that every layer has

 private:
  std::int64_t capacity_;
  std::vector<at::Tensor> keys_, values_;
};

}  // namespace lora::engine
