// Gram matrices on the matrix units of a processor (AMX), which multiply bf16 numbers.
#pragma once

#include "ops/numbers/panels.h"

namespace lora::numbers {

/// False where the processor has no such units or the system does not let this process use them.
bool has_matrix_units();

/// As lower_gram, where has_matrix_units(). Each value is taken as the sum of two bf16 numbers;
/// what that leaves out, and the product of the two small parts, is in the terms.
PanelMatrix split_gram(const PanelMatrix& values);
double split_gram_terms(std::int64_t rows);

}  // namespace lora::numbers
