// Rotary position tables.
#pragma once

#include <ATen/core/Tensor.h>

#include "lora/checkpoint/model_config.h"

namespace lora::engine {

/// Frequencies [dim / 2] as transformers computes them, in f32 with the same operations; longrope
/// has others for sequences of more than its original positions.
at::Tensor rotary_frequencies(const RopeConfig& rope, std::int64_t dim, bool is_long = false);

/// cos and sin of position * frequency, [positions, half()], grown on demand.
class RotaryTable {
 public:
  /// `dim`: width of a head, of which rope.rotary_fraction is rotated.
  RotaryTable(const RopeConfig& rope, std::int64_t dim);
  /// Makes the table good for sequences of this length; true when that changed the angles of
  /// positions that it already held (longrope).
  bool reserve(std::int64_t positions);
  std::int64_t half() const { return frequencies_.size(0); }
  const float* cos(std::int64_t position) const;
  const float* sin(std::int64_t position) const;

 private:
  RopeConfig rope_;
  std::int64_t dim_;
  bool is_long_ = false;
  at::Tensor frequencies_, cos_, sin_;
};

}  // namespace lora::engine
