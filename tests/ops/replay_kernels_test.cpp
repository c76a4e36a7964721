#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "lora/base/random.h"
#include "lora/base/tensor.h"
#include "ops/replay/kernels.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::replay;

namespace {

std::vector<float> normals(std::size_t count, std::uint64_t stream) {
  const CounterRandom random(5, stream);
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(random.normal(i));
  return values;
}

RightFactor packed(const std::vector<float>& matrix, std::int64_t rank, std::int64_t columns) {
  RightFactor right{rank, columns, {}};
  right.panels.assign(static_cast<std::size_t>((columns + kPanel - 1) / kPanel * kPanel * rank), 0);
  for (std::int64_t k = 0; k < rank; ++k)
    for (std::int64_t j = 0; j < columns; ++j)
      right.panels[static_cast<std::size_t>(((j / kPanel) * rank + k) * kPanel + j % kPanel)] =
          matrix[static_cast<std::size_t>(k * columns + j)];
  return right;
}

bool same_bits(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

}  // namespace

TEST_CASE("a product element is one chain of fused multiply-adds, in chunks above rank 192") {
  REQUIRE(chunk_of(1) == 1);
  REQUIRE(chunk_of(192) == 192);
  REQUIRE(chunk_of(193) == 96);
  REQUIRE(chunk_of(383) == 191);
  REQUIRE(chunk_of(384) == 192);
  REQUIRE(chunk_of(1000) == 192);
  constexpr std::int64_t kRows = 25, kColumns = 37;
  for (const std::int64_t rank : {1, 2, 7, 16, 64, 192, 193, 257, 400}) {
    const auto left = normals(static_cast<std::size_t>(kRows * rank), 1);
    const auto right = normals(static_cast<std::size_t>(rank * kColumns), 2);
    for (const Kernels* kernels : available_kernels()) {
      INFO(kernels->name << " rank " << rank);
      std::vector<float> product(kRows * kColumns);
      kernels->multiply(left.data(), kRows, packed(right, rank, kColumns), product.data());
      std::int64_t different = 0;
      for (std::int64_t i = 0; i < kRows; ++i)
        for (std::int64_t j = 0; j < kColumns; ++j) {
          float total = 0;
          for (std::int64_t start = 0; start < rank; start += chunk_of(rank)) {
            float chain = 0;
            for (std::int64_t k = start; k < std::min(start + chunk_of(rank), rank); ++k)
              chain = std::fma(left[static_cast<std::size_t>(i * rank + k)],
                               right[static_cast<std::size_t>(k * kColumns + j)], chain);
            total = start == 0 ? chain : total + chain;
          }
          different +=
              same_bits(total, product[static_cast<std::size_t>(i * kColumns + j)]) ? 0 : 1;
        }
      REQUIRE(different == 0);
    }
  }
}

TEST_CASE("separate multiplication and addition round twice a term") {
  // 1 + 2^-23 squared needs 47 bits: fused keeps the last of them, separate does not.
  const float above_one = 1 + std::numeric_limits<float>::epsilon();
  const std::vector<float> left{above_one, above_one};
  const std::vector<float> right{-above_one, above_one};
  const RightFactor factor = packed(right, 2, 1);
  REQUIRE(multiply_separately(left.data(), factor, 0) == 0.0F);
  for (const Kernels* kernels : available_kernels()) {
    float fused = 0;
    kernels->multiply(left.data(), 1, factor, &fused);
    REQUIRE(fused != 0.0F);
  }
}

TEST_CASE("rows are widened and rounded as the dtype library does") {
  std::vector<float> values = normals(1003, 3);
  values[0] = 65520.0F;  // rounds to infinity in F16
  values[1] = 1e-7F;     // subnormal in F16
  values[2] = std::numeric_limits<float>::infinity();
  values[3] = std::bit_cast<float>(0x3F808000U);  // a tie in BF16
  values[4] = -0.0F;
  for (const Kernels* kernels : available_kernels())
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
      std::vector<std::byte> stored(values.size() * bits_of(dtype) / 8);
      narrow(std::span<const float>(values), dtype, stored.data());
      std::vector<float> expected(values.size());
      widen(dtype, stored.data(), std::span<float>(expected));
      std::vector<float> rounded = values;
      kernels->round(dtype, rounded.data(), rounded.size());
      std::vector<float> loaded(values.size());
      kernels->load(dtype, stored.data(), loaded.data(), loaded.size());
      INFO(kernels->name << " " << to_string(dtype));
      REQUIRE(kernels->equal(rounded.data(), expected.data(), expected.size()));
      REQUIRE(kernels->equal(loaded.data(), expected.data(), expected.size()));
    }
}

TEST_CASE("rows are equal when their bits are, and NaN equals NaN") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> row{1, nan, 0, 2, 3, 4, 5, 6, 7};
  std::vector<float> other = row;
  for (const Kernels* kernels : available_kernels()) {
    REQUIRE(kernels->equal(row.data(), other.data(), row.size()));
    other[2] = -0.0F;
    REQUIRE_FALSE(kernels->equal(row.data(), other.data(), row.size()));
    other[2] = 0;
    other[8] = std::nextafter(7.0F, 8.0F);
    REQUIRE_FALSE(kernels->equal(row.data(), other.data(), row.size()));
    other[8] = 7;
  }
}

TEST_CASE("sums of intended and found change are those of float64") {
  const auto w = normals(1000, 4);
  const auto d = normals(1000, 5);
  std::vector<float> m = w;
  double wanted = 0, found = 0, overlap = 0, survived = 0;
  for (std::size_t i = 0; i < m.size(); ++i) {
    if (i % 3 != 0) m[i] += d[i];
    const double change = static_cast<double>(m[i]) - static_cast<double>(w[i]);
    const double intended = static_cast<double>(d[i]);
    wanted += intended * intended;
    found += change * change;
    overlap += intended * change;
    survived += change != 0 ? intended * intended : 0;
  }
  for (const Kernels* kernels : available_kernels()) {
    Sums sums;
    kernels->accumulate(w.data(), m.data(), d.data(), m.size(), sums);
    REQUIRE(sums.wanted == Approx(wanted).epsilon(1e-5));
    REQUIRE(sums.found == Approx(found).epsilon(1e-5));
    REQUIRE(sums.overlap == Approx(overlap).epsilon(1e-5));
    REQUIRE(sums.survived == Approx(survived).epsilon(1e-5));
    REQUIRE(sums.changed == 666);
    REQUIRE(sums.count == 1000);
  }
}

TEST_CASE("merging a row in one pass gives the bits and figures of its steps one by one") {
  const Kernels& plain = *available_kernels().front();
  for (const std::size_t n : {1U, 15U, 16U, 515U, 4096U, 9001U}) {
    const std::vector<float> values = normals(n, 3), product = normals(n, 4);
    const auto count = static_cast<std::int64_t>(n);
    for (const DType from : {DType::f32, DType::bf16})
      for (const DType to : {DType::f32, DType::bf16})
        for (const Kernels* kernels : available_kernels()) {
          INFO(kernels->name << " " << to_string(from) << " to " << to_string(to) << ", " << n);
          const Tensor stored = Tensor::from_f32({count}, values).cast(from);
          const float scaling = 1.0F / 64;
          std::vector<float> base(n), sum(n), update(n);
          plain.load(from, stored.bytes.data(), base.data(), n);
          plain.scale(product.data(), scaling, update.data(), n);
          sum = base;
          plain.add(sum.data(), update.data(), n);
          plain.round(to, sum.data(), n);
          Sums wanted, found;
          plain.accumulate(base.data(), sum.data(), update.data(), n, wanted);
          std::vector<std::byte> out(n * bits_of(to) / 8);
          REQUIRE(kernels->merge(from, to, product.data(), scaling, stored.bytes.data(), out.data(),
                                 n, found));
          REQUIRE(std::ranges::equal(out, Tensor::from_f32({count}, sum).cast(to).bytes));
          REQUIRE(found.changed == wanted.changed);
          REQUIRE(found.count == wanted.count);
          for (const auto& [a, b] :
               {std::pair(found.wanted, wanted.wanted), std::pair(found.found, wanted.found),
                std::pair(found.overlap, wanted.overlap),
                std::pair(found.survived, wanted.survived)})
            REQUIRE(std::abs(a - b) <= 1e-5 * std::abs(b));
        }
  }
}

TEST_CASE("merging a row rounds every remainder as the dtype library does, ties to even") {
  // Of even, odd, negative, tiny and large bf16 neighbours, and of one that carries into the next
  // power of two.
  for (const std::uint32_t high : {0x3F80U, 0x3F81U, 0xBF80U, 0x0000U, 0x0001U, 0x7F7EU, 0x3FFFU}) {
    std::vector<float> values(1 << 16);
    for (std::uint32_t low = 0; low < values.size(); ++low)
      values[low] = std::bit_cast<float>(high << 16 | low);
    const std::vector<float> product(values.size(), 0.0F);
    const auto count = static_cast<std::int64_t>(values.size());
    const Tensor stored = Tensor::from_f32({count}, values);
    for (const Kernels* kernels : available_kernels()) {
      INFO(kernels->name << " " << high);
      std::vector<std::byte> out(2 * values.size());
      Sums sums;
      REQUIRE(kernels->merge(DType::f32, DType::bf16, product.data(), 1, stored.bytes.data(),
                             out.data(), values.size(), sums));
      REQUIRE(std::ranges::equal(out, stored.cast(DType::bf16).bytes));
      std::vector<float> rounded = values;
      kernels->round(DType::bf16, rounded.data(), rounded.size());
      REQUIRE(rounded == stored.cast(DType::bf16).to_f32());
    }
  }
}

TEST_CASE("merging a row says when a value is not finite, in vectors and in the rest") {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const Kernels* kernels : available_kernels())
    for (const std::size_t at : {3U, 17U, 20U})
      for (const float bad : {infinity, -infinity, nan, std::numeric_limits<float>::max()}) {
        INFO(kernels->name << " " << at << " " << bad);
        std::vector<float> values(21, 1.0F), product(21, 0.5F);
        values[at] = bad;
        const Tensor stored = Tensor::from_f32({21}, values);
        std::vector<std::byte> out(42);
        Sums sums;
        // The largest f32 rounds to infinity in bf16.
        REQUIRE(!kernels->merge(DType::f32, DType::bf16, product.data(), 1, stored.bytes.data(),
                                out.data(), 21, sums));
      }
}
