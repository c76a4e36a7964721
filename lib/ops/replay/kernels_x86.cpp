#include "ops/replay/kernels_x86.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>

#include "ops/replay/merge_row.h"
#include "ops/replay/row_kernels.h"

#define LORA_AVX2 [[gnu::target("avx2,fma,f16c")]]
#define LORA_AVX512 [[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]]

namespace lora::replay {
namespace {

// `is_first` stores the chain of the first chunk, later ones are added to it.
LORA_AVX2 void store(float* out, __m256 low, __m256 high, std::int64_t width, bool is_first) {
  alignas(32) float chain[kPanel];
  _mm256_store_ps(chain, low);
  _mm256_store_ps(chain + 8, high);
  for (std::int64_t j = 0; j < width; ++j) out[j] = is_first ? chain[j] : out[j] + chain[j];
}

template <int kRows>
LORA_AVX2 void panel_avx2(const float* left, std::int64_t rank, const float* panel,
                          std::int64_t width, float* out, std::int64_t stride) {
  const std::int64_t chunk = chunk_of(rank);
  for (std::int64_t start = 0; start < rank; start += chunk) {
    const std::int64_t end = std::min(start + chunk, rank);
    __m256 low[kRows], high[kRows];
    for (int i = 0; i < kRows; ++i) low[i] = high[i] = _mm256_setzero_ps();
    for (std::int64_t k = start; k < end; ++k) {
      const __m256 right_low = _mm256_loadu_ps(panel + k * kPanel);
      const __m256 right_high = _mm256_loadu_ps(panel + k * kPanel + 8);
      for (int i = 0; i < kRows; ++i) {
        const __m256 value = _mm256_broadcast_ss(left + i * rank + k);
        low[i] = _mm256_fmadd_ps(value, right_low, low[i]);
        high[i] = _mm256_fmadd_ps(value, right_high, high[i]);
      }
    }
    for (int i = 0; i < kRows; ++i) {
      if (width == kPanel && start == 0) {
        _mm256_storeu_ps(out + i * stride, low[i]);
        _mm256_storeu_ps(out + i * stride + 8, high[i]);
      } else {
        store(out + i * stride, low[i], high[i], width, start == 0);
      }
    }
  }
}

LORA_AVX2 void multiply_avx2(const float* left, std::int64_t rows, const RightFactor& right,
                             float* out) {
  constexpr int kRows = 6;
  for (std::int64_t j = 0; j < right.columns; j += kPanel) {
    const float* panel = right.panels.data() + j * right.rank;
    const std::int64_t width = std::min(kPanel, right.columns - j);
    std::int64_t i = 0;
    for (; i + kRows <= rows; i += kRows)
      panel_avx2<kRows>(left + i * right.rank, right.rank, panel, width,
                        out + i * right.columns + j, right.columns);
    for (; i < rows; ++i)
      panel_avx2<1>(left + i * right.rank, right.rank, panel, width, out + i * right.columns + j,
                    right.columns);
  }
}

template <int kRows>
LORA_AVX512 void panel_avx512(const float* left, std::int64_t rank, const float* panel,
                              std::int64_t width, float* out, std::int64_t stride) {
  const std::int64_t chunk = chunk_of(rank);
  const auto mask = static_cast<__mmask16>((1U << width) - 1U);
  for (std::int64_t start = 0; start < rank; start += chunk) {
    const std::int64_t end = std::min(start + chunk, rank);
    __m512 chain[kRows];
    for (int i = 0; i < kRows; ++i) chain[i] = _mm512_setzero_ps();
    for (std::int64_t k = start; k < end; ++k) {
      const __m512 right = _mm512_loadu_ps(panel + k * kPanel);
      for (int i = 0; i < kRows; ++i)
        chain[i] = _mm512_fmadd_ps(_mm512_set1_ps(left[i * rank + k]), right, chain[i]);
    }
    for (int i = 0; i < kRows; ++i) {
      float* target = out + i * stride;
      if (start != 0) chain[i] = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, target), chain[i]);
      _mm512_mask_storeu_ps(target, mask, chain[i]);
    }
  }
}

LORA_AVX512 void multiply_avx512(const float* left, std::int64_t rows, const RightFactor& right,
                                 float* out) {
  constexpr int kRows = 12;
  for (std::int64_t j = 0; j < right.columns; j += kPanel) {
    const float* panel = right.panels.data() + j * right.rank;
    const std::int64_t width = std::min(kPanel, right.columns - j);
    std::int64_t i = 0;
    for (; i + kRows <= rows; i += kRows)
      panel_avx512<kRows>(left + i * right.rank, right.rank, panel, width,
                          out + i * right.columns + j, right.columns);
    for (; i < rows; ++i)
      panel_avx512<1>(left + i * right.rank, right.rank, panel, width, out + i * right.columns + j,
                      right.columns);
  }
}

LORA_AVX2 void load_f16(const std::byte* stored, float* out, std::size_t n) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(
        out + i,
        _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(stored + 2 * i))));
  for (; i < n; ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, stored + 2 * i, 2);
    out[i] = f16_to_f32(bits);
  }
}

LORA_AVX2 void round_f16(float* values, std::size_t n) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_ps(values + i, _mm256_cvtph_ps(half));
  }
  for (; i < n; ++i) values[i] = f16_to_f32(f32_to_f16(values[i]));
}

LORA_AVX2 void load_avx2(DType dtype, const std::byte* stored, float* out, std::size_t n) {
  if (dtype == DType::f32) return body::load_f32(stored, out, n);
  if (dtype == DType::bf16) return body::load_bf16(stored, out, n);
  load_f16(stored, out, n);
}

LORA_AVX2 void round_avx2(DType dtype, float* values, std::size_t n) {
  if (dtype == DType::bf16) body::round_bf16(values, n);
  if (dtype == DType::f16) round_f16(values, n);
}

LORA_AVX2 void scale_avx2(const float* values, float factor, float* out, std::size_t n) {
  body::scale(values, factor, out, n);
}

LORA_AVX2 void add_avx2(float* values, const float* added, std::size_t n) {
  body::add(values, added, n);
}

LORA_AVX2 bool equal_avx2(const float* a, const float* b, std::size_t n) {
  return body::equal(a, b, n);
}

LORA_AVX2 void accumulate_avx2(const float* w, const float* m, const float* d, std::size_t n,
                               Sums& sums) {
  body::accumulate(w, m, d, n, sums);
}

LORA_AVX2 bool merge_avx2(DType from, DType to, const float* product, float scaling,
                          const std::byte* stored, std::byte* out, std::size_t n, Sums& sums) {
  return body::merge(from, to, product, scaling, stored, out, n, sums);
}

LORA_AVX512 bool merge_avx512(DType from, DType to, const float* product, float scaling,
                              const std::byte* stored, std::byte* out, std::size_t n, Sums& sums) {
  return body::merge(from, to, product, scaling, stored, out, n, sums);
}

constexpr Kernels kAvx2{"avx2",   multiply_avx2, load_avx2,       round_avx2, scale_avx2,
                        add_avx2, equal_avx2,    accumulate_avx2, merge_avx2};
constexpr Kernels kAvx512{"avx512", multiply_avx512, load_avx2,       round_avx2,  scale_avx2,
                          add_avx2, equal_avx2,      accumulate_avx2, merge_avx512};

}  // namespace

std::vector<const Kernels*> x86_kernels() {
  std::vector<const Kernels*> sets;
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                        __builtin_cpu_supports("f16c");
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_avx2) sets.push_back(&kAvx2);
  if (has_avx2 && has_avx512) sets.push_back(&kAvx512);
  return sets;
}

}  // namespace lora::replay

#else

namespace lora::replay {
std::vector<const Kernels*> x86_kernels() { return {}; }
}  // namespace lora::replay

#endif
