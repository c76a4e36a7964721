// Tensors in another float dtype, without losing range in silence.
#pragma once

#include <cstdint>

#include "lora/base/tensor.h"

namespace lora {

struct CastTensors {
  TensorMap tensors;            ///< floats in the asked dtype, everything else as it was
  std::uint64_t converted = 0;  ///< tensors whose dtype changed
  std::uint64_t vanished = 0;   ///< values that were not zero and are now
};

/// Rounds to nearest even. NaN and infinities stay what they are. Throws Error(incompatible) that
/// names every tensor with a finite value beyond the range of `dtype`, with the first such value.
CastTensors cast_tensors(const TensorMap& tensors, DType dtype, int threads);

}  // namespace lora
