// Linear combinations of the rank rows of a LoRA factor, in f64.
#pragma once

#include "ops/numbers/gram.h"
#include "ops/numbers/symmetric.h"

namespace lora::numbers {

/// Adds to `sums` [length, k] the product of the factor's vectors [length, rank] and
/// `coefficients` [rank, k]: B . c of a B, A^T . c of an A.
void combine(const MatrixView& factor, Side side, const Matrix& coefficients, Matrix& sums);

}  // namespace lora::numbers
