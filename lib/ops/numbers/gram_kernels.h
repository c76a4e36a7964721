// Kernels of lib/ops/numbers/kernels.h that multiply, at each level.
#pragma once

#include "ops/numbers/kernels.h"

namespace lora::numbers {

void multiply_plain(const double* p, const double* q, std::size_t count, double* c,
                    std::size_t stride);
void add_rows_plain(const double* p, std::size_t count, double* sums);
void multiply_avx2(const double* p, const double* q, std::size_t count, double* c,
                   std::size_t stride);
void add_rows_avx2(const double* p, std::size_t count, double* sums);
void multiply_avx512(const double* p, const double* q, std::size_t count, double* c,
                     std::size_t stride);
void add_rows_avx512(const double* p, std::size_t count, double* sums);

}  // namespace lora::numbers
