// From (storage, offset, shape, strides) to a contiguous Tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "format/allocation_budget.h"
#include "format/pickle.h"
#include "lora/base/tensor.h"

namespace lora {

/// True when the elements follow each other in row-major order; extents of 1 may have any stride.
bool is_contiguous(const pickle::TensorView& view);

/// The tensor of `view` on the bytes of its storage: in place when contiguous, else a copy. Throws
/// Error(malformed) when an element lies outside the storage or a size overflows,
/// Error(unsupported) for dtypes without a counterpart and for copies beyond the budget: a view
/// with stride 0 describes any number of elements in a few bytes of file.
Tensor view_tensor(const pickle::TensorView& view, std::span<const std::byte> storage,
                   const std::shared_ptr<const void>& keep_alive, AllocationBudget& budget);

}  // namespace lora
