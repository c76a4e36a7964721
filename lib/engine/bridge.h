// Between lora::Tensor (bytes) and at::Tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include "lora/base/tensor.h"

namespace lora::engine {

/// The LibTorch type of a float, I64, I32, U8 or BOOL dtype; Error(unsupported) for others.
at::ScalarType scalar_type(DType dtype);
DType dtype_of(const at::Tensor& tensor);

/// A tensor over the same bytes that keeps their owner alive; copied when the address is not a
/// multiple of the element size. The result must not be written to.
at::Tensor view_of(const Tensor& tensor);

/// Values in another float type: the view itself when the type is the same already.
at::Tensor convert(const Tensor& tensor, at::ScalarType type);

/// Hands a dense F32 or I64 CPU tensor over without a copy.
Tensor to_lora(const at::Tensor& tensor);

}  // namespace lora::engine
