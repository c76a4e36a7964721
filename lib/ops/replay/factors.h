// LoRA factors as the f32 operands of the product kernels.
#pragma once

#include <optional>

#include "ops/replay/target.h"

namespace lora::replay {

/// The right factor of an addition: a, or b^T when it is transposed. `held_in` rounds the values to
/// that dtype first.
RightFactor pack_right(const Addition& addition, std::optional<DType> held_in);

/// Rows [first, first + count) of the left factor (b, or a^T), row-major [count, rank].
void gather_left(const Addition& addition, std::int64_t first, std::int64_t count,
                 std::optional<DType> held_in, std::vector<float>& out);

std::int64_t rank_of(const Addition& addition);

}  // namespace lora::replay
