// A product with a quantised matrix that LibTorch can differentiate.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/quantised_matrix.h"

namespace lora::engine {

/// x [..., in] . weight^T -> [..., out]. Backward widens the matrix again, so that the graph holds
/// no f32 copy of it. The codes stay alive as long as the graph does.
at::Tensor quantised_linear(const at::Tensor& x, const QuantisedMatrix& weight);

}  // namespace lora::engine
