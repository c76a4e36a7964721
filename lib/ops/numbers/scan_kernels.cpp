#include "ops/numbers/scan_kernels.h"

#include "ops/numbers/vector.h"

namespace lora::numbers {
namespace {

constexpr std::uint32_t kMagnitude = 0x7FFFFFFFU;
constexpr std::int32_t kInfinity = 0x7F800000;

template <int Bytes>
LORA_INLINE void scan_body(const float* values, std::size_t count, float smallest_normal,
                           Scan& scan) {
  using R = Register<Bytes>;
  using Doubles = typename R::Doubles;
  using Floats = typename R::Floats;
  using Ints = typename R::Ints;
  constexpr int kWidth = R::kLanes;
  constexpr int kParts = static_cast<int>(kLanes) / kWidth;
  const Doubles shift = Doubles{} + scan.shift;
  const Ints tiny = Ints{} + __builtin_bit_cast(std::int32_t, smallest_normal);
  Doubles sum[kParts];
  Doubles squares[kParts];
#pragma GCC unroll 8
  for (int part = 0; part < kParts; ++part) {
    sum[part] = *reinterpret_cast<const typename R::LooseDoubles*>(&scan.sum[part * kWidth]);
    squares[part] =
        *reinterpret_cast<const typename R::LooseDoubles*>(&scan.squares[part * kWidth]);
  }
  Floats least = Floats{} + __builtin_inff();
  Floats most = Floats{} - __builtin_inff();
  Ints largest{};
  Ints zeros{};
  Ints small{};
  const std::size_t body = count / kLanes * kLanes;
  for (std::size_t i = 0; i < body; i += kLanes) {
#pragma GCC unroll 8
    for (int part = 0; part < kParts; ++part) {
      const Floats x =
          *reinterpret_cast<const typename R::LooseFloats*>(values + i + part * kWidth);
      const Ints magnitude = (Ints)x & static_cast<std::int32_t>(kMagnitude);
      largest = largest > magnitude ? largest : magnitude;
      zeros += magnitude == 0;
      small += magnitude < tiny;
      least = x < least ? x : least;
      most = x > most ? x : most;
      const Doubles above = __builtin_convertvector(x, Doubles) - shift;
      sum[part] += above;
      squares[part] += above * above;
    }
  }
  std::int32_t peak = 0;
  float lowest = __builtin_inff();
  float highest = -__builtin_inff();
  std::int64_t zero_count = 0;
  std::int64_t small_count = 0;
  for (int lane = 0; lane < kWidth; ++lane) {
    peak = largest[lane] > peak ? largest[lane] : peak;
    lowest = least[lane] < lowest ? least[lane] : lowest;
    highest = most[lane] > highest ? most[lane] : highest;
    // A comparison that holds is -1.
    zero_count -= zeros[lane];
    small_count -= small[lane];
  }
#pragma GCC unroll 8
  for (int part = 0; part < kParts; ++part) {
    *reinterpret_cast<typename R::LooseDoubles*>(&scan.sum[part * kWidth]) = sum[part];
    *reinterpret_cast<typename R::LooseDoubles*>(&scan.squares[part * kWidth]) = squares[part];
  }
  for (std::size_t i = body; i < count; ++i) {
    const float x = values[i];
    const auto magnitude =
        static_cast<std::int32_t>(__builtin_bit_cast(std::uint32_t, x) & kMagnitude);
    peak = magnitude > peak ? magnitude : peak;
    zero_count += magnitude == 0 ? 1 : 0;
    small_count += magnitude < tiny[0] ? 1 : 0;
    lowest = x < lowest ? x : lowest;
    highest = x > highest ? x : highest;
    const double above = double{x} - scan.shift;
    scan.sum[i - body] += above;
    scan.squares[i - body] += above * above;
  }
  scan.min = lowest < scan.min ? lowest : scan.min;
  scan.max = highest > scan.max ? highest : scan.max;
  scan.zeros += zero_count;
  scan.small += small_count;
  if (peak >= kInfinity) scan.has_non_finite = true;
}

template <int Bytes>
LORA_INLINE void widen_bf16_body(const std::byte* source, std::size_t count, float* out) {
  using R = Register<Bytes>;
  constexpr std::size_t kWidth = R::kLanes;
  const std::size_t body = count / kWidth * kWidth;
  for (std::size_t i = 0; i < body; i += kWidth) {
    const auto halves = *reinterpret_cast<const typename R::LooseHalves*>(source + 2 * i);
    const auto words = __builtin_convertvector(halves, typename R::Words) << 16;
    *reinterpret_cast<typename R::LooseFloats*>(out + i) = (typename R::Floats)words;
  }
  for (std::size_t i = body; i < count; ++i) {
    const auto low = static_cast<std::uint32_t>(source[2 * i]);
    const auto high = static_cast<std::uint32_t>(source[2 * i + 1]);
    out[i] = __builtin_bit_cast(float, (low << 16) | (high << 24));
  }
}

// Exponent and mantissa of a half, moved to their place in a float, are 2^112 times too small;
// multiplying by 2^112 puts that right for subnormals too. Only infinities and NaN need their
// exponent set.
template <int Bytes>
LORA_INLINE void widen_f16_body(const std::byte* source, std::size_t count, float* out) {
  using R = Register<Bytes>;
  using Words = typename R::Words;
  using Ints = typename R::Ints;
  constexpr std::size_t kWidth = R::kLanes;
  const std::size_t body = count / kWidth * kWidth;
  for (std::size_t i = 0; i < body; i += kWidth) {
    const auto halves = *reinterpret_cast<const typename R::LooseHalves*>(source + 2 * i);
    const Words words = __builtin_convertvector(halves, Words);
    const Words sign = (words & 0x8000U) << 16;
    const Ints moved = (Ints)((words & 0x7FFFU) << 13);
    const Words scaled = (Words)((typename R::Floats)moved * 0x1p112F);
    const Words special = (Words)(moved >= 0x0F800000) & static_cast<std::uint32_t>(kInfinity);
    *reinterpret_cast<typename R::LooseFloats*>(out + i) =
        (typename R::Floats)(scaled | special | sign);
  }
  for (std::size_t i = body; i < count; ++i) {
    const auto half = static_cast<std::uint32_t>(source[2 * i]) |
                      (static_cast<std::uint32_t>(source[2 * i + 1]) << 8);
    const std::uint32_t moved = (half & 0x7FFFU) << 13;
    std::uint32_t bits =
        __builtin_bit_cast(std::uint32_t, __builtin_bit_cast(float, moved) * 0x1p112F);
    if (moved >= 0x0F800000U) bits |= static_cast<std::uint32_t>(kInfinity);
    out[i] = __builtin_bit_cast(float, bits | ((half & 0x8000U) << 16));
  }
}

}  // namespace

void scan_plain(const float* values, std::size_t count, float smallest_normal, Scan& scan) {
  scan_body<16>(values, count, smallest_normal, scan);
}
void widen_f16_plain(const std::byte* source, std::size_t count, float* out) {
  widen_f16_body<16>(source, count, out);
}
void widen_bf16_plain(const std::byte* source, std::size_t count, float* out) {
  widen_bf16_body<16>(source, count, out);
}

#ifdef LORA_HAS_LEVELS
LORA_AVX2 void scan_avx2(const float* values, std::size_t count, float smallest_normal,
                         Scan& scan) {
  scan_body<32>(values, count, smallest_normal, scan);
}
LORA_AVX2 void widen_f16_avx2(const std::byte* source, std::size_t count, float* out) {
  widen_f16_body<32>(source, count, out);
}
LORA_AVX2 void widen_bf16_avx2(const std::byte* source, std::size_t count, float* out) {
  widen_bf16_body<32>(source, count, out);
}
LORA_AVX512 void scan_avx512(const float* values, std::size_t count, float smallest_normal,
                             Scan& scan) {
  scan_body<64>(values, count, smallest_normal, scan);
}
LORA_AVX512 void widen_f16_avx512(const std::byte* source, std::size_t count, float* out) {
  widen_f16_body<64>(source, count, out);
}
LORA_AVX512 void widen_bf16_avx512(const std::byte* source, std::size_t count, float* out) {
  widen_bf16_body<64>(source, count, out);
}
#endif

}  // namespace lora::numbers
