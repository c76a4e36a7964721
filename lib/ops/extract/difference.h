// tuned - base of one tensor, as the matrix that is factored.
#pragma once

#include <cstdint>

#include "lora/base/tensor.h"
#include "ops/numbers/panels.h"

namespace lora::extraction {

struct Difference {
  numbers::PanelMatrix values;  ///< transposed where that gives more rows than columns
  bool is_transposed = false;
  double squared_norm = 0;  ///< NaN or infinite where a value is
};

/// Both of one shape of two dimensions and of float dtypes; the difference is rounded to f32.
Difference difference_of(const Tensor& base, const Tensor& tuned);

/// Expected squared norm of the rounding of these values to their dtype; 0 for F64.
double squared_rounding_of(const Tensor& tensor);

/// Rows of a matrix in which the two differ.
std::vector<std::int64_t> changed_rows(const Tensor& base, const Tensor& tuned);

}  // namespace lora::extraction
