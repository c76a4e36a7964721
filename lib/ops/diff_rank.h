// What the difference of two matrices is made of: few directions (a merged LoRA) or many.
#pragma once

#include "lora/ops/diff.h"

namespace lora {

/// Dimension 0 by everything else; nothing for tensors of fewer than two dimensions, or when a
/// value is not finite. Reads the difference in row blocks, twice; memory is that of `largest_rank`
/// rows and columns. The random directions depend on `name` only.
std::optional<DifferenceRank> difference_rank(const std::string& name, const Tensor& a,
                                              const Tensor& b, std::int64_t largest_rank);

/// Expected squared norm of the error of rounding values of this dtype: a twelfth of the squared
/// step at every value.
double squared_rounding(const Tensor& tensor, std::int64_t first, std::int64_t count);

}  // namespace lora
