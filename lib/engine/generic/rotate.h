// Rotary positions that LibTorch differentiates.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/generic/network.h"
#include "engine/llama/rotary.h"

namespace lora::engine {

/// The first 2 * table.half() values of each head of x [batch, heads, time, dim] rotated by their
/// positions, the first half with the second; the others as they are. `table` is reserved for the
/// longest document of the pass.
at::Tensor rotate(const at::Tensor& x, const RotaryTable& table, const SequencePass& pass);

}  // namespace lora::engine
