// Bitwise equality of tensors: what "the same values" means wherever identity is at stake. NaN
// equals itself, and 0 differs from -0.
#pragma once

#include <cstddef>

#include "lora/base/tensor.h"

namespace lora {

/// Equal dtype, shape and bytes; tensors on the same memory are not read.
bool has_equal_bytes(const Tensor& a, const Tensor& b);

/// Whether `count` values from `first` on are the same numbers in both, whatever their dtypes
/// (floats, unless the dtypes are one); of one dtype by their bytes.
bool has_equal_values(const Tensor& a, const Tensor& b, std::size_t first, std::size_t count);

}  // namespace lora
