#include "ops/replay/kernels.h"

#include <cmath>
#include <span>

#include "lora/base/error.h"
#include "ops/replay/kernels_x86.h"
#include "ops/replay/merge_row.h"
#include "ops/replay/row_kernels.h"

namespace lora::replay {
namespace {

void multiply(const float* left, std::int64_t rows, const RightFactor& right, float* out) {
  const std::int64_t chunk = chunk_of(right.rank);
  for (std::int64_t i = 0; i < rows; ++i, left += right.rank, out += right.columns) {
    for (std::int64_t j = 0; j < right.columns; ++j) {
      float total = 0;
      for (std::int64_t start = 0; start < right.rank; start += chunk) {
        const std::int64_t end = std::min(start + chunk, right.rank);
        float chain = 0;
        for (std::int64_t k = start; k < end; ++k) chain = std::fma(left[k], right.at(k, j), chain);
        total = start == 0 ? chain : total + chain;
      }
      out[j] = total;
    }
  }
}

void load(DType dtype, const std::byte* stored, float* out, std::size_t n) {
  if (dtype == DType::f32) return body::load_f32(stored, out, n);
  if (dtype == DType::bf16) return body::load_bf16(stored, out, n);
  widen(dtype, stored, std::span<float>(out, n));
}

void round(DType dtype, float* values, std::size_t n) {
  if (dtype == DType::bf16) body::round_bf16(values, n);
  if (dtype != DType::f16) return;
  for (std::size_t i = 0; i < n; ++i) values[i] = f16_to_f32(f32_to_f16(values[i]));
}

constexpr Kernels kPlain{
    "plain",
    multiply,
    load,
    round,
    [](const float* values, float factor, float* out, std::size_t n) {
      body::scale(values, factor, out, n);
    },
    [](float* values, const float* added, std::size_t n) { body::add(values, added, n); },
    [](const float* a, const float* b, std::size_t n) { return body::equal(a, b, n); },
    [](const float* w, const float* m, const float* d, std::size_t n, Sums& sums) {
      body::accumulate(w, m, d, n, sums);
    },
    [](DType from, DType to, const float* product, float scaling, const std::byte* stored,
       std::byte* out, std::size_t n,
       Sums& sums) { return body::merge(from, to, product, scaling, stored, out, n, sums); }};

}  // namespace

void Sums::add(const Sums& other) {
  wanted += other.wanted;
  found += other.found;
  overlap += other.overlap;
  survived += other.survived;
  changed += other.changed;
  count += other.count;
}

const std::vector<const Kernels*>& available_kernels() {
  static const std::vector<const Kernels*> sets = [] {
    std::vector<const Kernels*> found{&kPlain};
    for (const Kernels* set : x86_kernels()) found.push_back(set);
    return found;
  }();
  return sets;
}

const Kernels& best_kernels() { return *available_kernels().back(); }

std::int64_t chunk_of(std::int64_t rank) {
  constexpr std::int64_t kLongest = 192;
  if (rank <= kLongest) return std::max<std::int64_t>(rank, 1);
  return rank < 2 * kLongest ? rank / 2 : kLongest;
}

float multiply_separately(const float* left_row, const RightFactor& right, std::int64_t column) {
  // The product goes through memory: nothing may join it with the addition.
  volatile float product = 0;
  float total = 0;
  for (std::int64_t k = 0; k < right.rank; ++k) {
    product = left_row[k] * right.at(k, column);
    total = total + product;
  }
  return total;
}

}  // namespace lora::replay
