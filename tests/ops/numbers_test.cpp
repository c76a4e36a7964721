#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "ops/numbers/compare_kernels.h"
#include "ops/numbers/gram.h"
#include "ops/numbers/kernels.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::numbers;
using namespace lora::testing;

namespace {

std::vector<float> sample_values(std::size_t count) {
  std::vector<float> values = normal_tensor("values", {static_cast<std::int64_t>(count)}).to_f32();
  for (std::size_t i = 0; i < count; i += 11) values[i] = 0;
  for (std::size_t i = 5; i < count; i += 17) values[i] = 1e-40F;
  return values;
}

bool is_same(const Scan& x, const Scan& y) {
  return x.sum == y.sum && x.squares == y.squares && x.min == y.min && x.max == y.max &&
         x.zeros == y.zeros && x.small == y.small && x.has_non_finite == y.has_non_finite;
}

}  // namespace

TEST_CASE("every level of instructions scans to the same bits") {
  const std::vector<float> values = sample_values(1003);
  const Kernels plain = available_kernels().front();
  Scan expected;
  expected.shift = 0.25;
  plain.scan(values.data(), values.size(), std::numeric_limits<float>::min(), expected);
  REQUIRE(expected.zeros == std::count(values.begin(), values.end(), 0.0F));
  REQUIRE(expected.small > expected.zeros);
  for (const Kernels& level : available_kernels()) {
    INFO(level.name);
    Scan scan;
    scan.shift = 0.25;
    level.scan(values.data(), values.size(), std::numeric_limits<float>::min(), scan);
    REQUIRE(is_same(scan, expected));
  }
}

TEST_CASE("every level notices a value that is not finite, wherever it stands") {
  for (const Kernels& level : available_kernels()) {
    INFO(level.name);
    for (const std::size_t place : {std::size_t{0}, std::size_t{7}, std::size_t{13}}) {
      std::vector<float> values(14, 1.0F);
      values[place] = -std::numeric_limits<float>::infinity();
      Scan scan;
      level.scan(values.data(), values.size(), 0, scan);
      REQUIRE(scan.has_non_finite);
    }
  }
}

TEST_CASE("every level widens every half and every bfloat16 as the scalar conversions do") {
  std::vector<std::uint16_t> bits(65536);
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<std::uint16_t>(i);
  const auto* source = reinterpret_cast<const std::byte*>(bits.data());
  std::vector<float> halves(bits.size()), brains(bits.size());
  for (const Kernels& level : available_kernels()) {
    INFO(level.name);
    level.widen_f16(source, bits.size(), halves.data());
    level.widen_bf16(source, bits.size(), brains.data());
    for (std::size_t i = 0; i < bits.size(); ++i) {
      const float half = f16_to_f32(bits[i]);
      const float brain = bf16_to_f32(bits[i]);
      const bool same_half = std::isnan(half) ? std::isnan(halves[i])
                                              : std::bit_cast<std::uint32_t>(half) ==
                                                    std::bit_cast<std::uint32_t>(halves[i]);
      const bool same_brain = std::isnan(brain) ? std::isnan(brains[i])
                                                : std::bit_cast<std::uint32_t>(brain) ==
                                                      std::bit_cast<std::uint32_t>(brains[i]);
      if (!same_half || !same_brain) FAIL("differs at bits " << i);
    }
  }
}

TEST_CASE("every level multiplies tiles of f32 values to the same bits") {
  const std::vector<double> p = normal_tensor("p", {50, 8}).to_f64();
  const std::vector<double> q = normal_tensor("q", {50, 8}).to_f64();
  std::vector<double> expected(64, 0.0);
  for (std::size_t k = 0; k < 50; ++k)
    for (std::size_t i = 0; i < 8; ++i)
      for (std::size_t j = 0; j < 8; ++j) expected[i * 8 + j] += p[k * 8 + i] * q[k * 8 + j];
  for (const Kernels& level : available_kernels()) {
    INFO(level.name);
    std::vector<double> c(64, 0.0);
    level.multiply(p.data(), q.data(), 50, c.data(), 8);
    REQUIRE(c == expected);
  }
}

// A step less 2^31, as the kernels write it.
std::int32_t stored(std::uint32_t step) { return static_cast<std::int32_t>(step ^ 0x80000000U); }

TEST_CASE("every level compares pairs to the same bits and counts steps between values") {
  const std::vector<float> a = sample_values(203);
  std::vector<float> b = a;
  b[3] = std::nextafter(b[3], 100.0F);
  b[100] = -b[100];
  b[11] = -0.0F;
  b[202] += 1;
  const std::uint32_t across = 2 * (std::bit_cast<std::uint32_t>(a[100]) & 0x7FFFFFFFU);
  CompareKernels plain = available_compare_kernels().front();
  Comparison expected;
  std::vector<std::int32_t> steps(a.size()), other(a.size());
  plain.compare_f32(a.data(), b.data(), a.size(), expected);
  const StepRange range = plain.steps_32(a.data(), b.data(), a.size(), steps.data());
  REQUIRE(steps[3] == stored(1));
  REQUIRE(steps[11] == stored(0));
  REQUIRE(steps[100] == stored(across));
  REQUIRE((range.any & across) == across);
  REQUIRE(expected.largest == std::fabs(double{a[202]} - double{b[202]}));
  for (const CompareKernels& level : available_compare_kernels()) {
    INFO(level.name);
    Comparison sums;
    level.compare_f32(a.data(), b.data(), a.size(), sums);
    REQUIRE(sums.squares == expected.squares);
    REQUIRE(sums.squares_a == expected.squares_a);
    REQUIRE(sums.squares_b == expected.squares_b);
    REQUIRE(sums.largest == expected.largest);
    const StepRange same = level.steps_32(a.data(), b.data(), a.size(), other.data());
    REQUIRE(other == steps);
    REQUIRE(same.any == range.any);
    REQUIRE(same.peak == range.peak);
    std::array<std::int64_t, 32> reached{};
    level.count_32(steps.data(), steps.size(), 32, reached.data());
    for (int bit = 0; bit < 32; ++bit) {
      const auto far = std::count_if(steps.begin(), steps.end(),
                                     [&](std::int32_t s) { return s >= stored(1U << bit); });
      REQUIRE(reached[static_cast<std::size_t>(bit)] == far);
    }
    REQUIRE(reached[0] == 3);
  }
}

TEST_CASE("every level compares pairs of BF16 as it compares the same values in F32") {
  const std::vector<float> values = sample_values(2 * 1035);
  std::vector<std::byte> halves(2 * values.size());
  narrow(std::span<const float>(values), DType::bf16, halves.data());
  std::vector<float> wide(values.size());
  widen(DType::bf16, halves.data(), std::span(wide));
  const std::size_t count = 1035;
  const std::byte* a = halves.data();
  const std::byte* b = a + 2 * count;
  Comparison expected;
  available_compare_kernels().front().compare_f32(wide.data(), wide.data() + count, count,
                                                  expected);
  std::vector<std::int32_t> far(count);
  available_compare_kernels().front().steps_32(wide.data(), wide.data() + count, count, far.data());
  for (const CompareKernels& level : available_compare_kernels()) {
    INFO(level.name);
    Comparison sums;
    level.compare_bf16(a, b, count, sums);
    REQUIRE(sums.squares == expected.squares);
    REQUIRE(sums.squares_a == expected.squares_a);
    REQUIRE(sums.squares_b == expected.squares_b);
    REQUIRE(sums.largest == expected.largest);
    std::vector<std::int16_t> steps(count);
    const StepRange range = level.steps_16(a, b, count, steps.data());
    std::uint32_t any = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint32_t step = (static_cast<std::uint32_t>(far[i]) ^ 0x80000000U) >> 16;
      REQUIRE((static_cast<std::uint16_t>(steps[i]) ^ 0x8000U) == step);
      any |= step;
    }
    REQUIRE(range.any == any);
    std::array<std::int64_t, 16> reached{};
    level.count_16(steps.data(), count, 16, reached.data());
    for (int bit = 0; bit < 16; ++bit)
      REQUIRE(reached[static_cast<std::size_t>(bit)] ==
              std::count_if(steps.begin(), steps.end(), [&](std::int16_t s) {
                return (static_cast<std::uint16_t>(s) ^ 0x8000U) >= (1U << bit);
              }));
  }
}

TEST_CASE("Gram matrices of both sides are those of the values, for ranks off the tile size") {
  for (const std::int64_t rank : {1, 7, 8, 13, 70}) {
    const std::int64_t length = 517;
    const Tensor a = normal_tensor("a", {rank, length});
    const std::vector<double> values = a.to_f64();
    std::vector<float> turned(values.size());
    for (std::int64_t i = 0; i < rank; ++i)
      for (std::int64_t k = 0; k < length; ++k)
        turned[static_cast<std::size_t>(k * rank + i)] =
            static_cast<float>(values[static_cast<std::size_t>(i * length + k)]);
    const Tensor b = Tensor::from_f32({length, rank}, turned);
    FactorSums left = sum_vectors(MatrixView(a), Side::rows, 0, length);
    FactorSums right = sum_vectors(MatrixView(b), Side::columns, 0, length);
    left.gram.mirror();
    right.gram.mirror();
    for (std::int64_t i = 0; i < rank; ++i) {
      double sum = 0;
      for (std::int64_t k = 0; k < length; ++k)
        sum += values[static_cast<std::size_t>(i * length + k)];
      REQUIRE(left.gram.sums[static_cast<std::size_t>(i)] == sum);
      for (std::int64_t j = 0; j < rank; ++j) {
        double inner = 0;
        for (std::int64_t k = 0; k < length; ++k)
          inner += values[static_cast<std::size_t>(i * length + k)] *
                   values[static_cast<std::size_t>(j * length + k)];
        REQUIRE(left.gram.at(i, j) == inner);
        REQUIRE(right.gram.at(i, j) == inner);
      }
    }
    REQUIRE(left.tally.scan.zeros == 0);
  }
}
