// Inner products of updates, from their factors.
#pragma once

#include <vector>

#include "lora/adapter/update.h"
#include "ops/numbers/factor_stack.h"

namespace lora::combining {

/// Entry (i, j): the sum over all elements of term i times term j, scalings included. Terms have
/// one shape.
numbers::Matrix inner_products(const std::vector<UpdateFactor>& terms);
/// The same where the Gram matrices of the terms are known.
numbers::Matrix inner_products(const std::vector<UpdateFactor>& terms,
                               const numbers::StackGrams& grams);

/// b . a with scaling 1, as f64 tensors.
UpdateFactor product_of(const numbers::Matrix& b, const numbers::Matrix& a);

}  // namespace lora::combining
