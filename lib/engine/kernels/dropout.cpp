#include <ATen/Parallel.h>

#include <algorithm>

#include "engine/kernels/kernels.h"
#include "engine/kernels/vector.h"

namespace lora::engine {
namespace {

// Two rounds of a 32-bit multiply-xorshift mixer (Wellons' lowbias32 constants), keyed before each:
// Philox would cost more than the product that follows.
template <typename Value>
LORA_INLINE Value mix(const Value& word) {
  Value h = word;
  h ^= h >> 16;
  h *= 0x7FEB352DU;
  h ^= h >> 15;
  h *= 0x846CA68BU;
  h ^= h >> 16;
  return h;
}

LORA_KERNEL void dropout_range(const float* x, std::int64_t begin, std::int64_t end,
                               std::uint32_t threshold, float scale, std::uint32_t key0,
                               std::uint32_t key1, float* out) {
  constexpr Words kSteps{0, 1, 2, 3, 4, 5, 6, 7};
  std::int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    const Words high = Words{} + (static_cast<std::uint32_t>(i >> 32) ^ key1);
    const Words h = mix(mix((kSteps + static_cast<std::uint32_t>(i)) ^ key0) ^ high);
    store(out + i, (Floats)((Words)(load(x + i) * scale) & (Words)(h >= threshold)));
  }
  for (; i < end; ++i) {
    const std::uint32_t h = mix(mix(static_cast<std::uint32_t>(i) ^ key0) ^
                                (static_cast<std::uint32_t>(i >> 32) ^ key1));
    out[i] = h >= threshold ? x[i] * scale : 0.0F;
  }
}

}  // namespace

void apply_dropout(const float* x, std::int64_t count, double p, std::uint64_t key, float* out) {
  const auto threshold = static_cast<std::uint32_t>(std::min(p * 0x1.0p32, 4294967295.0));
  const auto scale = static_cast<float>(1.0 / (1.0 - p));
  // Slices start at multiples of the vector width, so no vector straddles a 2^32 boundary.
  const std::int64_t blocks = (count + kLanes - 1) / kLanes;
  at::parallel_for(0, blocks, 4096, [=](std::int64_t begin, std::int64_t end) {
    dropout_range(x, begin * kLanes, std::min(end * kLanes, count), threshold, scale,
                  static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32), out);
  });
}

}  // namespace lora::engine
