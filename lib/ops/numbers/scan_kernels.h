// Kernels of lib/ops/numbers/kernels.h that look at single values, at each level.
#pragma once

#include "ops/numbers/kernels.h"

namespace lora::numbers {

void scan_plain(const float* values, std::size_t count, float smallest_normal, Scan& scan);
void widen_f16_plain(const std::byte* source, std::size_t count, float* out);
void widen_bf16_plain(const std::byte* source, std::size_t count, float* out);
void scan_avx2(const float* values, std::size_t count, float smallest_normal, Scan& scan);
void widen_f16_avx2(const std::byte* source, std::size_t count, float* out);
void widen_bf16_avx2(const std::byte* source, std::size_t count, float* out);
void scan_avx512(const float* values, std::size_t count, float smallest_normal, Scan& scan);
void widen_f16_avx512(const std::byte* source, std::size_t count, float* out);
void widen_bf16_avx512(const std::byte* source, std::size_t count, float* out);

}  // namespace lora::numbers
