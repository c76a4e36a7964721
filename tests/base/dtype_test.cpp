#include "lora/base/dtype.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "support/testing.h"

namespace lora {
namespace {

struct Layout {
  int exponent_bits;
  int mantissa_bits;
};
constexpr Layout kHalf{5, 10};
constexpr Layout kBrain{8, 7};

// The value of a 16-bit pattern by the definition of the format, exact in double.
double value_of(std::uint16_t bits, Layout layout) {
  const int bias = (1 << (layout.exponent_bits - 1)) - 1;
  const int exponent = (bits >> layout.mantissa_bits) & ((1 << layout.exponent_bits) - 1);
  const int mantissa = bits & ((1 << layout.mantissa_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << layout.exponent_bits) - 1)
    return mantissa != 0 ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - layout.mantissa_bits);
  return sign *
         std::ldexp(mantissa + (1 << layout.mantissa_bits), exponent - bias - layout.mantissa_bits);
}

// Round-to-nearest-even by searching the finite patterns, which are ordered by magnitude. The
// pattern of infinity stands for the power of two that follows the largest finite value.
std::uint16_t nearest_pattern(double value, Layout layout) {
  const auto infinity =
      static_cast<std::uint16_t>(((1 << layout.exponent_bits) - 1) << layout.mantissa_bits);
  const auto magnitude_of = [&](std::uint16_t bits) {
    return bits == infinity ? std::ldexp(1.0, 1 << (layout.exponent_bits - 1))
                            : value_of(bits, layout);
  };
  const double magnitude = std::fabs(value);
  std::uint16_t low = 0;
  std::uint16_t high = infinity;
  if (magnitude >= magnitude_of(infinity)) low = infinity;
  while (high - low > 1) {
    const auto middle = static_cast<std::uint16_t>((low + high) / 2);
    (magnitude_of(middle) <= magnitude ? low : high) = middle;
  }
  if (low != infinity) {
    const double below = magnitude - magnitude_of(low);
    const double above = magnitude_of(high) - magnitude;
    if (above < below || (above == below && (low & 1) != 0)) low = high;
  }
  return static_cast<std::uint16_t>(low | (std::signbit(value) ? 0x8000 : 0));
}

template <typename T>
std::uint16_t narrowed(T value, DType dtype) {
  std::uint16_t bits = 0;
  narrow(std::span<const T>(&value, 1), dtype, reinterpret_cast<std::byte*>(&bits));
  return bits;
}

void require_every_pattern(Layout layout, DType dtype, float (*widen_one)(std::uint16_t),
                           std::uint16_t (*narrow_one)(float)) {
  std::vector<std::uint16_t> patterns(65536);
  for (std::size_t i = 0; i < patterns.size(); ++i) patterns[i] = static_cast<std::uint16_t>(i);
  std::vector<double> doubles(patterns.size());
  widen(dtype, std::as_bytes(std::span(patterns)).data(), std::span(doubles));
  std::size_t wrong = 0;
  for (const std::uint16_t bits : patterns) {
    const double expected = value_of(bits, layout);
    const float found = widen_one(bits);
    if (std::isnan(expected)) {
      wrong += std::isnan(found) && std::signbit(found) == ((bits & 0x8000) != 0) ? 0 : 1;
      const std::uint16_t back = narrow_one(found);
      wrong += std::isnan(value_of(back, layout)) && (back & 0x8000) == (bits & 0x8000) ? 0 : 1;
      continue;
    }
    wrong += std::bit_cast<std::uint64_t>(static_cast<double>(found)) ==
                     std::bit_cast<std::uint64_t>(expected)
                 ? 0
                 : 1;
    wrong += std::bit_cast<std::uint64_t>(doubles[bits]) == std::bit_cast<std::uint64_t>(expected)
                 ? 0
                 : 1;
    wrong += narrow_one(found) == bits ? 0 : 1;
  }
  REQUIRE(wrong == 0);
}

// Values at, just below and just above every midpoint between neighbours, and random ones.
std::vector<double> interesting_values(Layout layout) {
  std::vector<double> values;
  const int top = ((1 << layout.exponent_bits) - 1) << layout.mantissa_bits;
  for (int bits = 0; bits < top; ++bits) {
    const double low = value_of(static_cast<std::uint16_t>(bits), layout);
    const double high = bits + 1 == top ? std::ldexp(1.0, 1 << (layout.exponent_bits - 1))
                                        : value_of(static_cast<std::uint16_t>(bits + 1), layout);
    const double middle = low + (high - low) / 2;
    for (const double value : {middle, std::nextafter(middle, 0.0), std::nextafter(middle, high)}) {
      values.push_back(value);
      values.push_back(-value);
    }
  }
  return values;
}

void require_nearest(Layout layout, DType dtype, std::uint16_t (*narrow_one)(float)) {
  std::size_t wrong = 0;
  for (const double value : interesting_values(layout)) {
    wrong += narrowed(value, dtype) == nearest_pattern(value, layout) ? 0 : 1;
    const auto single = static_cast<float>(value);
    wrong += narrow_one(single) == nearest_pattern(single, layout) ? 0 : 1;
    for (const float next : {std::nextafterf(single, 0.0F), std::nextafterf(single, 1e38F)})
      wrong += narrow_one(next) == nearest_pattern(next, layout) ? 0 : 1;
  }
  std::mt19937 generator(3);
  for (int i = 0; i < 200'000; ++i) {
    const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(generator()));
    if (std::isnan(value)) continue;
    wrong += narrow_one(value) == nearest_pattern(value, layout) ? 0 : 1;
  }
  REQUIRE(wrong == 0);
}

}  // namespace

TEST_CASE("f16 widens every pattern to its value and back") {
  require_every_pattern(kHalf, DType::f16, f16_to_f32, f32_to_f16);
}

TEST_CASE("bf16 widens every pattern to its value and back") {
  require_every_pattern(kBrain, DType::bf16, bf16_to_f32, f32_to_bf16);
}

TEST_CASE("f32 and f64 round to the nearest f16, ties to even, once") {
  require_nearest(kHalf, DType::f16, f32_to_f16);
}

TEST_CASE("f32 and f64 round to the nearest bf16, ties to even, once") {
  require_nearest(kBrain, DType::bf16, f32_to_bf16);
}

TEST_CASE("rounding keeps zeros, infinities and NaN") {
  const float infinity = std::numeric_limits<float>::infinity();
  REQUIRE(f32_to_f16(-0.0F) == 0x8000);
  REQUIRE(f32_to_bf16(-0.0F) == 0x8000);
  REQUIRE(f32_to_f16(infinity) == 0x7C00);
  REQUIRE(f32_to_f16(65519.996F) == 0x7BFF);
  REQUIRE(f32_to_f16(65520.0F) == 0x7C00);
  REQUIRE(f32_to_bf16(-infinity) == 0xFF80);
  REQUIRE(f32_to_bf16(std::numeric_limits<float>::max()) == 0x7F80);
  REQUIRE(narrowed(1e300, DType::bf16) == 0x7F80);
  REQUIRE(narrowed(-1e300, DType::f16) == 0xFC00);
  REQUIRE(narrowed(1e-300, DType::bf16) == 0);
  REQUIRE(narrowed(-1e-300, DType::f16) == 0x8000);
  // A NaN whose payload lies only in the bits that are cut off must not become an infinity.
  for (const std::uint32_t bits : {0x7F800001U, 0xFF800001U, 0x7FC00000U, 0x7FFFFFFFU}) {
    const auto nan = std::bit_cast<float>(bits);
    REQUIRE(std::isnan(f16_to_f32(f32_to_f16(nan))));
    REQUIRE(std::isnan(bf16_to_f32(f32_to_bf16(nan))));
    REQUIRE((f32_to_f16(nan) & 0x0200) != 0);
    REQUIRE((f32_to_bf16(nan) & 0x0040) != 0);
    REQUIRE((f32_to_bf16(nan) >> 15) == (bits >> 31));
  }
}

TEST_CASE("widen and narrow work at any alignment") {
  const std::vector<float> values{1.5F, -2.25F, 65504.0F, 0.0F};
  for (const DType dtype : {DType::f16, DType::bf16, DType::f32, DType::f64}) {
    std::vector<std::byte> buffer(values.size() * bits_of(dtype) / 8 + 1);
    narrow(std::span<const float>(values), dtype, buffer.data() + 1);
    std::vector<double> doubles(values.size());
    widen(dtype, buffer.data() + 1, std::span(doubles));
    std::vector<float> floats(values.size());
    widen(dtype, buffer.data() + 1, std::span(floats));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double expected = dtype == DType::bf16 && i == 2 ? 65536.0 : values[i];
      REQUIRE(doubles[i] == expected);
      REQUIRE(floats[i] == static_cast<float>(expected));
    }
  }
}

TEST_CASE("conversions refuse dtypes that are not floats, even of no elements") {
  std::byte byte{};
  std::vector<float> floats;
  std::vector<double> doubles;
  for (const DType dtype : {DType::i32, DType::boolean, DType::f8_e4m3, DType::c64, DType::f4}) {
    REQUIRE_FALSE(is_float(dtype));
    testing::require_error(ErrorKind::unsupported, "expected a float dtype",
                           [&] { widen(dtype, &byte, std::span(floats)); });
    testing::require_error(ErrorKind::unsupported, to_string(dtype),
                           [&] { narrow(std::span<const double>(doubles), dtype, &byte); });
  }
}

TEST_CASE("dtype names are those of safetensors, ranked as the reference ranks them") {
  constexpr std::string_view descending[] = {
      "U64", "I64", "F64",     "C64",         "F32",         "U32",     "I32",     "BF16",
      "F16", "U16", "I16",     "F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0", "F8_E4M3", "F8_E5M2",
      "I8",  "U8",  "F6_E3M2", "F6_E2M3",     "F4",          "BOOL"};
  std::optional<DType> previous;
  for (const std::string_view name : descending) {
    const auto dtype = dtype_from_string(name);
    REQUIRE(dtype);
    REQUIRE(to_string(*dtype) == name);
    if (previous) REQUIRE(*previous > *dtype);
    previous = dtype;
  }
  REQUIRE(previous == DType::boolean);
  REQUIRE_FALSE(dtype_from_string("f32"));
  REQUIRE_FALSE(dtype_from_string(""));
  REQUIRE_FALSE(dtype_from_string("F3"));
  REQUIRE(bits_of(DType::f4) == 4);
  REQUIRE(bits_of(DType::f6_e3m2) == 6);
  REQUIRE(bits_of(DType::boolean) == 8);
  REQUIRE(bits_of(DType::bf16) == 16);
  REQUIRE(bits_of(DType::c64) == 64);
}

}  // namespace lora
