// Rotary position tables.
#pragma once

#include <ATen/core/Tensor.h>

#include "lora/checkpoint/model_config.h"

namespace lora::engine {

/// Frequencies [dim / 2] as transformers computes them, in f32 with the same operations.
at::Tensor rotary_frequencies(const RopeConfig& rope, std::int64_t dim);

/// cos and sin of position * frequency, [positions, dim / 2], grown on demand.
class RotaryTable {
 public:
  RotaryTable(const RopeConfig& rope, std::int64_t dim)
      : frequencies_(rotary_frequencies(rope, dim)) {}
  void reserve(std::int64_t positions);
  const float* cos(std::int64_t position) const;
  const float* sin(std::int64_t position) const;

 private:
  at::Tensor frequencies_, cos_, sin_;
};

}  // namespace lora::engine
