// Products of f32 values are exact in f64, so that fused multiply-add changes no bit of their sums.
#include "ops/numbers/gram_kernels.h"

#include "ops/numbers/vector.h"

namespace lora::numbers {
namespace {

constexpr std::size_t kTile = 8;

// `Rows` rows of the tile at a time: 2, 4 and 8 fill the registers of SSE2, AVX2 and AVX-512.
template <int Bytes, int Rows>
LORA_INLINE void multiply_body(const double* p, const double* q, std::size_t count, double* c,
                               std::size_t stride) {
  using R = Register<Bytes>;
  using Doubles = typename R::Doubles;
  using Loose = typename R::LooseDoubles;
  constexpr int kWidth = R::kLanes;
  constexpr int kParts = static_cast<int>(kTile) / kWidth;
  for (std::size_t first = 0; first < kTile; first += Rows) {
    Doubles sums[Rows][kParts];
#pragma GCC unroll 8
    for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 8
      for (int part = 0; part < kParts; ++part)
        sums[row][part] =
            *reinterpret_cast<const Loose*>(c + (first + row) * stride + part * kWidth);
    for (std::size_t k = 0; k < count; ++k) {
      Doubles right[kParts];
#pragma GCC unroll 8
      for (int part = 0; part < kParts; ++part)
        right[part] = *reinterpret_cast<const Loose*>(q + kTile * k + part * kWidth);
#pragma GCC unroll 8
      for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 8
        for (int part = 0; part < kParts; ++part)
          sums[row][part] += p[kTile * k + first + row] * right[part];
    }
#pragma GCC unroll 8
    for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 8
      for (int part = 0; part < kParts; ++part)
        *reinterpret_cast<Loose*>(c + (first + row) * stride + part * kWidth) = sums[row][part];
  }
}

template <int Bytes>
LORA_INLINE void add_rows_body(const double* p, std::size_t count, double* sums) {
  using R = Register<Bytes>;
  using Loose = typename R::LooseDoubles;
  constexpr int kWidth = R::kLanes;
  constexpr int kParts = static_cast<int>(kTile) / kWidth;
  typename R::Doubles total[kParts];
#pragma GCC unroll 8
  for (int part = 0; part < kParts; ++part)
    total[part] = *reinterpret_cast<const Loose*>(sums + part * kWidth);
  for (std::size_t k = 0; k < count; ++k) {
#pragma GCC unroll 8
    for (int part = 0; part < kParts; ++part)
      total[part] += *reinterpret_cast<const Loose*>(p + kTile * k + part * kWidth);
  }
#pragma GCC unroll 8
  for (int part = 0; part < kParts; ++part)
    *reinterpret_cast<Loose*>(sums + part * kWidth) = total[part];
}

}  // namespace

void multiply_plain(const double* p, const double* q, std::size_t count, double* c,
                    std::size_t stride) {
  multiply_body<16, 2>(p, q, count, c, stride);
}
void add_rows_plain(const double* p, std::size_t count, double* sums) {
  add_rows_body<16>(p, count, sums);
}

#ifdef LORA_HAS_LEVELS
LORA_AVX2 void multiply_avx2(const double* p, const double* q, std::size_t count, double* c,
                             std::size_t stride) {
  multiply_body<32, 4>(p, q, count, c, stride);
}
LORA_AVX2 void add_rows_avx2(const double* p, std::size_t count, double* sums) {
  add_rows_body<32>(p, count, sums);
}
LORA_AVX512 void multiply_avx512(const double* p, const double* q, std::size_t count, double* c,
                                 std::size_t stride) {
  multiply_body<64, 8>(p, q, count, c, stride);
}
LORA_AVX512 void add_rows_avx512(const double* p, std::size_t count, double* sums) {
  add_rows_body<64>(p, count, sums);
}
#endif

}  // namespace lora::numbers
