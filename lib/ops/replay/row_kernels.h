// Bodies of the row kernels, written once: each processor's file compiles them for itself.
//
// Multiplication and addition stay separate statements, so that no compiler joins them into one
// rounding (ISO mode of GCC never does; Clang does so only inside an expression).
#pragma once

#include <array>
#include <bit>
#include <cstring>

#include "ops/replay/kernels.h"

namespace lora::replay::body {

#define LORA_ROW_KERNEL [[gnu::always_inline]] inline

LORA_ROW_KERNEL void load_f32(const std::byte* stored, float* out, std::size_t n) {
  std::memcpy(out, stored, n * sizeof(float));
}

LORA_ROW_KERNEL void load_bf16(const std::byte* stored, float* out, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, stored + 2 * i, 2);
    out[i] = std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
}

LORA_ROW_KERNEL void round_bf16(float* values, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<std::uint32_t>(values[i]);
    const std::uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) & 0xFFFF0000U;
    const bool is_nan = (bits & 0x7FFFFFFFU) > 0x7F800000U;
    values[i] = std::bit_cast<float>(is_nan ? (bits | 0x00400000U) & 0xFFFF0000U : rounded);
  }
}

LORA_ROW_KERNEL void scale(const float* values, float factor, float* out, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) out[i] = values[i] * factor;
}

LORA_ROW_KERNEL void add(float* values, const float* added, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) values[i] += added[i];
}

LORA_ROW_KERNEL bool equal(const float* a, const float* b, std::size_t n) {
  std::uint32_t different = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const auto x = std::bit_cast<std::uint32_t>(a[i]);
    const auto y = std::bit_cast<std::uint32_t>(b[i]);
    const bool both_nan = ((x & 0x7FFFFFFFU) > 0x7F800000U) & ((y & 0x7FFFFFFFU) > 0x7F800000U);
    different |= both_nan ? 0U : x ^ y;
  }
  return different == 0;
}

// Lanes of f32 over a short stretch, then f64: the order is fixed, so results do not depend on
// threads.
LORA_ROW_KERNEL void accumulate(const float* w, const float* m, const float* d, std::size_t n,
                                Sums& sums) {
  constexpr std::size_t kLanes = 16, kStretch = 512;
  for (std::size_t start = 0; start < n; start += kStretch) {
    const std::size_t end = start + kStretch < n ? start + kStretch : n;
    std::array<float, kLanes> wanted{}, found{}, overlap{}, survived{};
    std::array<std::int32_t, kLanes> changed{};
    std::size_t i = start;
    for (; i + kLanes <= end; i += kLanes) {
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        const float change = m[i + lane] - w[i + lane];
        const float square = d[i + lane] * d[i + lane];
        const float change_square = change * change;
        const float product = change * d[i + lane];
        wanted[lane] += square;
        found[lane] += change_square;
        overlap[lane] += product;
        survived[lane] += change != 0 ? square : 0.0F;
        changed[lane] += change != 0 ? 1 : 0;
      }
    }
    for (; i < end; ++i) {
      const float change = m[i] - w[i];
      const float square = d[i] * d[i];
      wanted[0] += square;
      found[0] += change * change;
      overlap[0] += change * d[i];
      survived[0] += change != 0 ? square : 0.0F;
      changed[0] += change != 0 ? 1 : 0;
    }
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      sums.wanted += static_cast<double>(wanted[lane]);
      sums.found += static_cast<double>(found[lane]);
      sums.overlap += static_cast<double>(overlap[lane]);
      sums.survived += static_cast<double>(survived[lane]);
      sums.changed += changed[lane];
    }
  }
  sums.count += static_cast<std::int64_t>(n);
}

#undef LORA_ROW_KERNEL

}  // namespace lora::replay::body
