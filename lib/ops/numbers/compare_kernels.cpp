#include "ops/numbers/compare_kernels.h"

#include <cstring>
#include <type_traits>

#include "ops/numbers/vector.h"

namespace lora::numbers {
namespace {

// How a kind of value is read: one at a time, and a register of floats.
template <int Bytes>
struct Float32 {
  static constexpr std::size_t kWidth = 4;
  static LORA_INLINE float one(const std::byte* p) {
    float value;
    std::memcpy(&value, p, sizeof value);
    return value;
  }
  static LORA_INLINE void many(const std::byte* p, typename Register<Bytes>::FullFloats& out) {
    out = *reinterpret_cast<const typename Register<Bytes>::LooseFullFloats*>(p);
  }
};

template <int Bytes>
struct BFloat16 {
  static constexpr std::size_t kWidth = 2;
  static LORA_INLINE float one(const std::byte* p) {
    const auto bits = static_cast<std::uint32_t>(p[0]) | (static_cast<std::uint32_t>(p[1]) << 8);
    return __builtin_bit_cast(float, bits << 16);
  }
  static LORA_INLINE void many(const std::byte* p, typename Register<Bytes>::FullFloats& out) {
    using R = Register<Bytes>;
    const auto halves = *reinterpret_cast<const typename R::LooseFullHalves*>(p);
    out = (typename R::FullFloats)(__builtin_convertvector(halves, typename R::FullWords) << 16);
  }
};

template <int Bytes, template <int> typename Format>
LORA_INLINE void compare_body(const std::byte* a, const std::byte* b, std::size_t count,
                              Comparison& sums) {
  using R = Register<Bytes>;
  using Values = Format<Bytes>;
  using Doubles = typename R::Doubles;
  using LooseDoubles = typename R::LooseDoubles;
  constexpr int kLanes = R::kLanes;
  constexpr int kParts = 8 / kLanes;
  Doubles squares[kParts];
  Doubles squares_a[kParts];
  Doubles squares_b[kParts];
#pragma GCC unroll 8
  for (int part = 0; part < kParts; ++part) {
    squares[part] = *reinterpret_cast<const LooseDoubles*>(&sums.squares[part * kLanes]);
    squares_a[part] = *reinterpret_cast<const LooseDoubles*>(&sums.squares_a[part * kLanes]);
    squares_b[part] = *reinterpret_cast<const LooseDoubles*>(&sums.squares_b[part * kLanes]);
  }
  Doubles above{};
  Doubles below{};
  // Sixteen lanes at most: where a register holds eight doubles, two share the eight sums.
  const std::size_t step = 2 * kLanes > 8 ? 2 * kLanes : 8;
  const std::size_t body = count / step * step;
  for (std::size_t i = 0; i < body; i += step) {
#pragma GCC unroll 8
    for (std::size_t part = 0; part < step / kLanes; part += 2) {
      const std::size_t at = (i + part * kLanes) * Values::kWidth;
      typename R::FullFloats narrow_x;
      typename R::FullFloats narrow_y;
      Values::many(a + at, narrow_x);
      Values::many(b + at, narrow_y);
      Doubles x[2];
      Doubles y[2];
      widen_pair<Bytes>(narrow_x, x[0], x[1]);
      widen_pair<Bytes>(narrow_y, y[0], y[1]);
#pragma GCC unroll 2
      for (std::size_t half = 0; half < 2; ++half) {
        const Doubles difference = x[half] - y[half];
        above = difference > above ? difference : above;
        below = difference < below ? difference : below;
        squares[(part + half) % kParts] += difference * difference;
        squares_a[(part + half) % kParts] += x[half] * x[half];
        squares_b[(part + half) % kParts] += y[half] * y[half];
      }
    }
  }
  double largest = sums.largest;
  for (int lane = 0; lane < kLanes; ++lane) {
    largest = above[lane] > largest ? above[lane] : largest;
    largest = -below[lane] > largest ? -below[lane] : largest;
  }
#pragma GCC unroll 8
  for (int part = 0; part < kParts; ++part) {
    *reinterpret_cast<LooseDoubles*>(&sums.squares[part * kLanes]) = squares[part];
    *reinterpret_cast<LooseDoubles*>(&sums.squares_a[part * kLanes]) = squares_a[part];
    *reinterpret_cast<LooseDoubles*>(&sums.squares_b[part * kLanes]) = squares_b[part];
  }
  for (std::size_t i = body; i < count; ++i) {
    const double x = Values::one(a + i * Values::kWidth);
    const double y = Values::one(b + i * Values::kWidth);
    const double difference = x - y;
    const double distance = difference < 0 ? -difference : difference;
    largest = distance > largest ? distance : largest;
    sums.squares[i % 8] += difference * difference;
    sums.squares_a[i % 8] += x * x;
    sums.squares_b[i % 8] += y * y;
  }
  sums.largest = largest;
}

// `Word` is a signed integer of the width of the floats. Sign and magnitude become a signed number
// that is ordered as the floats are, one step a value.
template <int Bytes, typename Word>
LORA_INLINE StepRange steps_body(const std::byte* a, const std::byte* b, std::size_t count,
                                 Word* steps) {
  using Unsigned = std::make_unsigned_t<Word>;
  typedef Word Words __attribute__((vector_size(Bytes)));
  typedef Word LooseWords __attribute__((vector_size(Bytes), aligned(1), may_alias));
  typedef Unsigned Steps __attribute__((vector_size(Bytes)));
  constexpr int kSignBit = 8 * sizeof(Word) - 1;
  constexpr Word kSign = static_cast<Word>(Unsigned{1} << kSignBit);
  constexpr Word kMagnitude = static_cast<Word>(~kSign);
  constexpr std::size_t kLanes = Bytes / sizeof(Word);
  Words any{};
  Words peak{};
  const std::size_t body = count / kLanes * kLanes;
  for (std::size_t i = 0; i < body; i += kLanes) {
    const Words x = *reinterpret_cast<const LooseWords*>(a + i * sizeof(Word));
    const Words y = *reinterpret_cast<const LooseWords*>(b + i * sizeof(Word));
    const Words sign_x = x >> kSignBit;
    const Words sign_y = y >> kSignBit;
    const Words size_x = x & kMagnitude;
    const Words size_y = y & kMagnitude;
    peak = peak > size_x ? peak : size_x;
    peak = peak > size_y ? peak : size_y;
    const Words order_x = (size_x ^ sign_x) - sign_x;
    const Words order_y = (size_y ^ sign_y) - sign_y;
    const Words high = order_x > order_y ? order_x : order_y;
    const Words low = order_x > order_y ? order_y : order_x;
    // Up to twice the largest signed number.
    const Words distance = (Words)((Steps)high - (Steps)low);
    any |= distance;
    *reinterpret_cast<LooseWords*>(steps + i) = distance ^ kSign;
  }
  StepRange range;
  const auto add = [&](Word distance, Word magnitude) {
    range.any |= static_cast<Unsigned>(distance);
    if (static_cast<Unsigned>(magnitude) > range.peak)
      range.peak = static_cast<Unsigned>(magnitude);
  };
  for (std::size_t lane = 0; lane < kLanes; ++lane) add(any[lane], peak[lane]);
  for (std::size_t i = body; i < count; ++i) {
    Word x;
    Word y;
    std::memcpy(&x, a + i * sizeof(Word), sizeof(Word));
    std::memcpy(&y, b + i * sizeof(Word), sizeof(Word));
    const auto size_x = static_cast<Word>(x & kMagnitude);
    const auto size_y = static_cast<Word>(y & kMagnitude);
    const auto order_x = static_cast<Word>(x < 0 ? -size_x : size_x);
    const auto order_y = static_cast<Word>(y < 0 ? -size_y : size_y);
    const Word high = order_x > order_y ? order_x : order_y;
    const Word low = order_x > order_y ? order_y : order_x;
    const auto distance =
        static_cast<Word>(static_cast<Unsigned>(high) - static_cast<Unsigned>(low));
    add(distance, size_x > size_y ? size_x : size_y);
    steps[i] = static_cast<Word>(distance ^ kSign);
  }
  return range;
}

// Four limits a pass, so that a step is loaded once for four counters.
template <int Bytes, typename Word>
LORA_INLINE void count_body(const Word* steps, std::size_t count, int bits, std::int64_t* counts) {
  using Unsigned = std::make_unsigned_t<Word>;
  typedef Word Words __attribute__((vector_size(Bytes)));
  typedef Word LooseWords __attribute__((vector_size(Bytes), aligned(sizeof(Word)), may_alias));
  constexpr std::size_t kLanes = Bytes / sizeof(Word);
  constexpr int kAtOnce = 4;
  constexpr auto kSign = static_cast<Word>(Unsigned{1} << (8 * sizeof(Word) - 1));
  const std::size_t body = count / kLanes * kLanes;
  for (int first = 0; first < bits; first += kAtOnce) {
    // A step of 2^k or more is above 2^k - 1. The last pass may count limits that are not asked
    // for.
    Word limits[kAtOnce];
    for (int i = 0; i < kAtOnce; ++i) {
      const int bit = first + i < bits ? first + i : bits - 1;
      limits[i] = static_cast<Word>(static_cast<Word>((Unsigned{1} << bit) - 1) ^ kSign);
    }
    const Words limit0 = Words{} + limits[0];
    const Words limit1 = Words{} + limits[1];
    const Words limit2 = Words{} + limits[2];
    const Words limit3 = Words{} + limits[3];
    Words reached[kAtOnce] = {};
    for (std::size_t k = 0; k < body; k += kLanes) {
      const Words step = *reinterpret_cast<const LooseWords*>(steps + k);
      reached[0] -= step > limit0;
      reached[1] -= step > limit1;
      reached[2] -= step > limit2;
      reached[3] -= step > limit3;
    }
    for (int i = 0; i < kAtOnce && first + i < bits; ++i) {
      std::int64_t total = 0;
      for (std::size_t lane = 0; lane < kLanes; ++lane)
        total += static_cast<Unsigned>(reached[i][lane]);
      for (std::size_t k = body; k < count; ++k) total += steps[k] > limits[i] ? 1 : 0;
      counts[first + i] += total;
    }
  }
}

// The functions of one level: `Bytes` a register, compiled as `Attributes` say.
#define LORA_COMPARE_LEVEL(Level, Attributes, Bytes)                                               \
  Attributes void compare_f32_##Level(const float* a, const float* b, std::size_t count,           \
                                      Comparison& sums) {                                          \
    compare_body<Bytes, Float32>(reinterpret_cast<const std::byte*>(a),                            \
                                 reinterpret_cast<const std::byte*>(b), count, sums);              \
  }                                                                                                \
  Attributes void compare_bf16_##Level(const std::byte* a, const std::byte* b, std::size_t count,  \
                                       Comparison& sums) {                                         \
    compare_body<Bytes, BFloat16>(a, b, count, sums);                                              \
  }                                                                                                \
  Attributes StepRange steps_16_##Level(const std::byte* a, const std::byte* b, std::size_t count, \
                                        std::int16_t* steps) {                                     \
    return steps_body<Bytes>(a, b, count, steps);                                                  \
  }                                                                                                \
  Attributes StepRange steps_32_##Level(const float* a, const float* b, std::size_t count,         \
                                        std::int32_t* steps) {                                     \
    return steps_body<Bytes>(reinterpret_cast<const std::byte*>(a),                                \
                             reinterpret_cast<const std::byte*>(b), count, steps);                 \
  }                                                                                                \
  Attributes void count_16_##Level(const std::int16_t* steps, std::size_t count, int bits,         \
                                   std::int64_t* counts) {                                         \
    count_body<Bytes>(steps, count, bits, counts);                                                 \
  }                                                                                                \
  Attributes void count_32_##Level(const std::int32_t* steps, std::size_t count, int bits,         \
                                   std::int64_t* counts) {                                         \
    count_body<Bytes>(steps, count, bits, counts);                                                 \
  }                                                                                                \
  constexpr CompareKernels k_##Level{#Level,           compare_f32_##Level, compare_bf16_##Level,  \
                                     steps_16_##Level, steps_32_##Level,    count_16_##Level,      \
                                     count_32_##Level};

LORA_COMPARE_LEVEL(plain, , 16)
#ifdef LORA_HAS_LEVELS
LORA_COMPARE_LEVEL(avx2, LORA_AVX2, 32)
LORA_COMPARE_LEVEL(avx512, LORA_AVX512, 64)
#endif
#undef LORA_COMPARE_LEVEL

}  // namespace

std::vector<CompareKernels> available_compare_kernels() {
  std::vector<CompareKernels> levels{k_plain};
#ifdef LORA_HAS_LEVELS
  if (has_avx2()) levels.push_back(k_avx2);
  if (has_avx512()) levels.push_back(k_avx512);
#endif
  return levels;
}

const CompareKernels& compare_kernels() {
  static const CompareKernels best = available_compare_kernels().back();
  return best;
}

}  // namespace lora::numbers
