#include "ops/numbers/compare_kernels.h"

#include "ops/numbers/vector.h"

namespace lora::numbers {
namespace {

constexpr std::int32_t kMagnitude = 0x7FFFFFFF;
constexpr std::int32_t kInfinity = 0x7F800000;

// Sign and magnitude as a signed integer: ordered as the floats are, one step a value.
std::int32_t order_of(float x) {
  const auto bits = __builtin_bit_cast(std::int32_t, x);
  return bits < 0 ? -(bits & kMagnitude) : bits;
}

template <int Bytes>
LORA_INLINE void compare_body(const float* a, const float* b, std::size_t count, Comparison& sums,
                              std::uint32_t* steps) {
  using R = Register<Bytes>;
  using Doubles = typename R::Doubles;
  using LooseDoubles = typename R::LooseDoubles;
  using LooseFloats = typename R::LooseFloats;
  using Floats = typename R::Floats;
  using Ints = typename R::Ints;
  typedef std::uint32_t LooseWords __attribute__((vector_size(Bytes / 2), aligned(4), may_alias));
  constexpr int kWidth = R::kLanes;
  constexpr int kParts = 8 / kWidth;
  Doubles squares[kParts];
  Doubles squares_a[kParts];
  Doubles squares_b[kParts];
#pragma GCC unroll 8
  for (int part = 0; part < kParts; ++part) {
    squares[part] = *reinterpret_cast<const LooseDoubles*>(&sums.squares[part * kWidth]);
    squares_a[part] = *reinterpret_cast<const LooseDoubles*>(&sums.squares_a[part * kWidth]);
    squares_b[part] = *reinterpret_cast<const LooseDoubles*>(&sums.squares_b[part * kWidth]);
  }
  Doubles largest{};
  Ints peak{};
  Ints changed{};
  const std::size_t body = count / 8 * 8;
  for (std::size_t i = 0; i < body; i += 8) {
#pragma GCC unroll 8
    for (int part = 0; part < kParts; ++part) {
      const Floats x = *reinterpret_cast<const LooseFloats*>(a + i + part * kWidth);
      const Floats y = *reinterpret_cast<const LooseFloats*>(b + i + part * kWidth);
      const Ints sign_x = (Ints)x >> 31;
      const Ints sign_y = (Ints)y >> 31;
      const Ints size_x = (Ints)x & kMagnitude;
      const Ints size_y = (Ints)y & kMagnitude;
      peak = peak > size_x ? peak : size_x;
      peak = peak > size_y ? peak : size_y;
      const Ints order_x = (size_x ^ sign_x) - sign_x;
      const Ints order_y = (size_y ^ sign_y) - sign_y;
      const Ints high = order_x > order_y ? order_x : order_y;
      const Ints low = order_x > order_y ? order_y : order_x;
      *reinterpret_cast<LooseWords*>(steps + i + part * kWidth) =
          (typename R::Words)high - (typename R::Words)low;
      changed += high != low;
      const Doubles wide_x = __builtin_convertvector(x, Doubles);
      const Doubles wide_y = __builtin_convertvector(y, Doubles);
      const Doubles difference = wide_x - wide_y;
      const Doubles distance = difference < 0 ? -difference : difference;
      largest = distance > largest ? distance : largest;
      squares[part] += difference * difference;
      squares_a[part] += wide_x * wide_x;
      squares_b[part] += wide_y * wide_y;
    }
  }
  for (int lane = 0; lane < kWidth; ++lane) {
    sums.largest = largest[lane] > sums.largest ? largest[lane] : sums.largest;
    sums.changed -= changed[lane];
    if (peak[lane] >= kInfinity) sums.has_non_finite = true;
  }
#pragma GCC unroll 8
  for (int part = 0; part < kParts; ++part) {
    *reinterpret_cast<LooseDoubles*>(&sums.squares[part * kWidth]) = squares[part];
    *reinterpret_cast<LooseDoubles*>(&sums.squares_a[part * kWidth]) = squares_a[part];
    *reinterpret_cast<LooseDoubles*>(&sums.squares_b[part * kWidth]) = squares_b[part];
  }
  for (std::size_t i = body; i < count; ++i) {
    const std::int32_t order_x = order_of(a[i]);
    const std::int32_t order_y = order_of(b[i]);
    if (order_x >= kInfinity || -order_x >= kInfinity || order_y >= kInfinity ||
        -order_y >= kInfinity)
      sums.has_non_finite = true;
    steps[i] = order_x > order_y
                   ? static_cast<std::uint32_t>(order_x) - static_cast<std::uint32_t>(order_y)
                   : static_cast<std::uint32_t>(order_y) - static_cast<std::uint32_t>(order_x);
    sums.changed += order_x != order_y ? 1 : 0;
    const double x = a[i];
    const double y = b[i];
    const double difference = x - y;
    const double distance = difference < 0 ? -difference : difference;
    sums.largest = distance > sums.largest ? distance : sums.largest;
    sums.squares[i - body] += difference * difference;
    sums.squares_a[i - body] += x * x;
    sums.squares_b[i - body] += y * y;
  }
}

LORA_INLINE std::int32_t half_order(const std::byte* p) {
  const auto bits = static_cast<std::int32_t>(static_cast<std::uint32_t>(p[0]) |
                                              (static_cast<std::uint32_t>(p[1]) << 8));
  return (bits & 0x8000) != 0 ? -(bits & 0x7FFF) : bits;
}

LORA_INLINE void half_steps_body(const std::byte* a, const std::byte* b, std::size_t count,
                                 std::uint32_t* steps) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t distance = half_order(a + 2 * i) - half_order(b + 2 * i);
    steps[i] = static_cast<std::uint32_t>(distance < 0 ? -distance : distance);
  }
}

void compare_plain(const float* a, const float* b, std::size_t count, Comparison& sums,
                   std::uint32_t* steps) {
  compare_body<16>(a, b, count, sums, steps);
}
void half_steps_plain(const std::byte* a, const std::byte* b, std::size_t count,
                      std::uint32_t* steps) {
  half_steps_body(a, b, count, steps);
}

#ifdef LORA_HAS_LEVELS
LORA_AVX2 void compare_avx2(const float* a, const float* b, std::size_t count, Comparison& sums,
                            std::uint32_t* steps) {
  compare_body<32>(a, b, count, sums, steps);
}
LORA_AVX2 void half_steps_avx2(const std::byte* a, const std::byte* b, std::size_t count,
                               std::uint32_t* steps) {
  half_steps_body(a, b, count, steps);
}
LORA_AVX512 void compare_avx512(const float* a, const float* b, std::size_t count, Comparison& sums,
                                std::uint32_t* steps) {
  compare_body<64>(a, b, count, sums, steps);
}
LORA_AVX512 void half_steps_avx512(const std::byte* a, const std::byte* b, std::size_t count,
                                   std::uint32_t* steps) {
  half_steps_body(a, b, count, steps);
}
#endif

}  // namespace

std::vector<CompareKernels> available_compare_kernels() {
  std::vector<CompareKernels> levels{{"plain", compare_plain, half_steps_plain}};
#ifdef LORA_HAS_LEVELS
  if (has_avx2()) levels.push_back({"avx2", compare_avx2, half_steps_avx2});
  if (has_avx512()) levels.push_back({"avx512", compare_avx512, half_steps_avx512});
#endif
  return levels;
}

const CompareKernels& compare_kernels() {
  static const CompareKernels best = available_compare_kernels().back();
  return best;
}

}  // namespace lora::numbers
