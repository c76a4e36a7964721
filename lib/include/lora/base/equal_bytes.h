// Bitwise equality of tensors: what "the same values" means wherever identity is at stake. NaN
// equals itself, and 0 differs from -0.
#pragma once

#include "lora/base/tensor.h"

namespace lora {

/// Equal dtype, shape and bytes; tensors on the same memory are not read.
bool has_equal_bytes(const Tensor& a, const Tensor& b);

}  // namespace lora
