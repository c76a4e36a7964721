// The whole merge of a row in one pass, where nothing but one update is added to it.
//
// Read the stored value, add the scaled product, round, store, and count what became of the update:
// the same operations as load, scale, add, round and accumulate one after another, in the same
// order, without five trips through memory.
#pragma once

#include <bit>
#include <cstring>

#include "ops/replay/kernels.h"

namespace lora::replay::body {

#define LORA_ROW_KERNEL [[gnu::always_inline]] inline

// Sums are f32 for a stretch, then f64: long enough that folding the lanes costs little.
inline constexpr std::size_t kMergeLanes = 16, kMergeStretch = 4096;
typedef float MergeFloats __attribute__((vector_size(64)));
typedef std::int32_t MergeInts __attribute__((vector_size(64)));
typedef std::uint32_t MergeWords __attribute__((vector_size(64)));
typedef std::uint16_t MergeHalves __attribute__((vector_size(32)));

struct StoredF32 {
  static constexpr std::size_t kBytes = 4;
  LORA_ROW_KERNEL static void read(const std::byte* from, MergeFloats& out) {
    std::memcpy(&out, from, sizeof out);
  }
  LORA_ROW_KERNEL static float read_one(const std::byte* from) {
    float value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  template <typename Words>
  LORA_ROW_KERNEL static void round(Words&) {}
  LORA_ROW_KERNEL static void write(const MergeWords& bits, std::byte* to) {
    std::memcpy(to, &bits, sizeof bits);
  }
  LORA_ROW_KERNEL static void write_one(std::uint32_t bits, std::byte* to) {
    std::memcpy(to, &bits, sizeof bits);
  }
};

struct StoredBf16 {
  static constexpr std::size_t kBytes = 2;
  LORA_ROW_KERNEL static void read(const std::byte* from, MergeFloats& out) {
    MergeHalves halves;
    std::memcpy(&halves, from, sizeof halves);
    out = (MergeFloats)(__builtin_convertvector(halves, MergeWords) << 16);
  }
  LORA_ROW_KERNEL static float read_one(const std::byte* from) {
    std::uint16_t half;
    std::memcpy(&half, from, sizeof half);
    return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16);
  }
  // To nearest even. What becomes of a NaN does not matter: the row is refused.
  template <typename Words>
  LORA_ROW_KERNEL static void round(Words& bits) {
    bits = (bits + 0x7FFFU + ((bits >> 16) & 1U)) & 0xFFFF0000U;
  }
  LORA_ROW_KERNEL static void write(const MergeWords& bits, std::byte* to) {
    const MergeHalves halves = __builtin_convertvector(bits >> 16, MergeHalves);
    std::memcpy(to, &halves, sizeof halves);
  }
  LORA_ROW_KERNEL static void write_one(std::uint32_t bits, std::byte* to) {
    const auto half = static_cast<std::uint16_t>(bits >> 16);
    std::memcpy(to, &half, sizeof half);
  }
};

/// out = rounded(stored + product * scaling); false when a value of the row is not finite.
template <typename From, typename To>
LORA_ROW_KERNEL bool merge_row(const float* product, float scaling, const std::byte* stored,
                               std::byte* out, std::size_t n, Sums& sums) {
  MergeWords largest{};
  std::uint32_t largest_one = 0;
  for (std::size_t start = 0; start < n; start += kMergeStretch) {
    const std::size_t end = start + kMergeStretch < n ? start + kMergeStretch : n;
    MergeFloats wanted{}, found{}, overlap{}, survived{};
    MergeInts changed{};
    std::size_t i = start;
    for (; i + kMergeLanes <= end; i += kMergeLanes) {
      MergeFloats base, update;
      From::read(stored + i * From::kBytes, base);
      std::memcpy(&update, product + i, sizeof update);
      update = update * scaling;
      const MergeFloats sum = base + update;
      MergeWords bits = (MergeWords)sum;
      To::round(bits);
      To::write(bits, out + i * To::kBytes);
      const MergeWords magnitude = bits & 0x7FFFFFFFU;
      largest = magnitude > largest ? magnitude : largest;
      const MergeFloats change = (MergeFloats)bits - base;
      const MergeFloats square = update * update;
      const MergeFloats change_square = change * change;
      const MergeFloats both = change * update;
      const MergeInts is_changed = change != 0;
      wanted += square;
      found += change_square;
      overlap += both;
      survived += (MergeFloats)((MergeInts)square & is_changed);
      changed -= is_changed;
    }
    for (; i < end; ++i) {
      const float base = From::read_one(stored + i * From::kBytes);
      const float update = product[i] * scaling;
      const float sum = base + update;
      auto bits = std::bit_cast<std::uint32_t>(sum);
      To::round(bits);
      To::write_one(bits, out + i * To::kBytes);
      const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
      largest_one = magnitude > largest_one ? magnitude : largest_one;
      const float change = std::bit_cast<float>(bits) - base;
      const float square = update * update;
      wanted[0] += square;
      found[0] += change * change;
      overlap[0] += change * update;
      survived[0] += change != 0 ? square : 0.0F;
      changed[0] += change != 0 ? 1 : 0;
    }
    for (std::size_t lane = 0; lane < kMergeLanes; ++lane) {
      sums.wanted += static_cast<double>(wanted[lane]);
      sums.found += static_cast<double>(found[lane]);
      sums.overlap += static_cast<double>(overlap[lane]);
      sums.survived += static_cast<double>(survived[lane]);
      sums.changed += changed[lane];
    }
  }
  for (std::size_t lane = 0; lane < kMergeLanes; ++lane)
    largest_one = largest[lane] > largest_one ? largest[lane] : largest_one;
  sums.count += static_cast<std::int64_t>(n);
  return largest_one < 0x7F800000U;
}

/// The same by dtypes, which must be F32 or BF16.
LORA_ROW_KERNEL bool merge(DType from, DType to, const float* product, float scaling,
                           const std::byte* stored, std::byte* out, std::size_t n, Sums& sums) {
  if (from == DType::f32)
    return to == DType::f32
               ? merge_row<StoredF32, StoredF32>(product, scaling, stored, out, n, sums)
               : merge_row<StoredF32, StoredBf16>(product, scaling, stored, out, n, sums);
  return to == DType::f32
             ? merge_row<StoredBf16, StoredF32>(product, scaling, stored, out, n, sums)
             : merge_row<StoredBf16, StoredBf16>(product, scaling, stored, out, n, sums);
}

#undef LORA_ROW_KERNEL

}  // namespace lora::replay::body
