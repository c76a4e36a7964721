#include "engine/kernels/quantised.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/kernels/vector.h"

namespace lora::engine {
namespace {

constexpr float kNf4Values[16] = {
    -1.0F,
    -0.6961928009986877F,
    -0.5250730514526367F,
    -0.39491748809814453F,
    -0.28444138169288635F,
    -0.18477343022823334F,
    -0.09105003625154495F,
    0.0F,
    0.07958029955625534F,
    0.16093020141124725F,
    0.24611230194568634F,
    0.33791524171829224F,
    0.44070982933044434F,
    0.5626170039176941F,
    0.7229568362236023F,
    1.0F,
};

// A value belongs to the code above a border only when it is larger than the border.
constexpr float border(int code) { return (kNf4Values[code] + kNf4Values[code + 1]) / 2; }

// The largest magnitude; not finite when any value is not.
LORA_INLINE float largest_magnitude(const float* values, std::int64_t count) {
  float largest = 0;
  float poison = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::fabs(values[i]));
    poison += values[i] * 0.0F;
  }
  return largest + poison;
}

LORA_INLINE int nf4_code(float scaled) {
  int code = 0;
  for (int i = 0; i < 15; ++i) code += scaled > border(i) ? 1 : 0;
  return code;
}

LORA_INLINE Ints nf4_codes(const Floats& scaled) {
  Ints code{};
  // A comparison gives -1 where it holds.
  for (int i = 0; i < 15; ++i) code -= scaled > broadcast(border(i));
  return code;
}

LORA_INLINE void code_nf4_block(const float* values, std::int64_t count, float largest,
                                std::uint8_t* codes) {
  constexpr float kLeast = 1e-38F;
  std::uint8_t code[kNf4Block] = {};
  if (count == kNf4Block) {
    const float factor = 1.0F / std::max(largest, kLeast);
    for (std::int64_t i = 0; i < count; i += kLanes) {
      const Ints eight = nf4_codes(load(values + i) * factor);
      for (int lane = 0; lane < kLanes; ++lane)
        code[i + lane] = static_cast<std::uint8_t>(eight[lane]);
    }
  } else {
    // bitsandbytes divides in the one block that is not full, which rounds differently.
    for (std::int64_t i = 0; i < count; ++i)
      code[i] = static_cast<std::uint8_t>(nf4_code(values[i] / std::max(largest, kLeast)));
    if (count % 2 != 0) code[count] = 7;
  }
  for (std::int64_t i = 0; i < count; i += 2)
    codes[i / 2] = static_cast<std::uint8_t>(code[i] << 4 | code[i + 1]);
}

LORA_KERNEL bool code_nf4(const float* values, std::int64_t count, std::uint8_t* codes,
                          float* scales) {
  for (std::int64_t first = 0; first < count; first += kNf4Block) {
    const std::int64_t size = std::min(kNf4Block, count - first);
    const float largest = largest_magnitude(values + first, size);
    if (!std::isfinite(largest)) return false;
    scales[first / kNf4Block] = largest;
    code_nf4_block(values + first, size, largest, codes + first / 2);
  }
  return true;
}

LORA_KERNEL bool code_int8(const float* values, std::int64_t count, std::int8_t* codes,
                           float* scales) {
  for (std::int64_t first = 0; first < count; first += kInt8Block) {
    const std::int64_t size = std::min(kInt8Block, count - first);
    const float largest = largest_magnitude(values + first, size);
    if (!std::isfinite(largest)) return false;
    const float scale = largest / 127.0F;
    scales[first / kInt8Block] = scale;
    for (std::int64_t i = 0; i < size; ++i) {
      // A scale below the smallest number leaves nothing to tell the values apart by.
      const float code = scale > 0 ? std::nearbyint(values[first + i] / scale) : 0.0F;
      codes[first + i] = static_cast<std::int8_t>(std::clamp(code, -127.0F, 127.0F));
    }
  }
  return true;
}

LORA_INLINE Floats look_up(const Floats& low, const Floats& high, const Ints& code) {
#if defined(__clang__)
  Floats result;
  for (int lane = 0; lane < kLanes; ++lane)
    result[lane] = code[lane] < kLanes ? low[code[lane]] : high[code[lane] - kLanes];
  return result;
#else
  return __builtin_shuffle(low, high, code);
#endif
}

struct Nf4 {
  using Code = std::uint8_t;
  static constexpr std::int64_t kBlock = kNf4Block;
  static constexpr std::int64_t kCodesInOne = 2;

  // Four bytes a turn, spread to eight lanes in the order of the values.
  static LORA_INLINE void run(const Code* codes, float scale, std::int64_t count, float* out) {
    const Floats low = load(kNf4Values) * scale;
    const Floats high = load(kNf4Values + kLanes) * scale;
    const Words shift{4, 0, 12, 8, 20, 16, 28, 24};
    for (std::int64_t i = 0; i < count; i += kLanes) {
      std::uint32_t four;
      std::memcpy(&four, codes + i / 2, sizeof four);
      const Words spread = Words{four, four, four, four, four, four, four, four} >> shift;
      store(out + i, look_up(low, high, (Ints)(spread & 15)));
    }
  }
  static LORA_INLINE float one(const Code* codes, float scale, std::int64_t i) {
    const int both = codes[i / 2];
    return kNf4Values[i % 2 == 0 ? both >> 4 : both & 15] * scale;
  }
};

struct Int8 {
  using Code = std::int8_t;
  static constexpr std::int64_t kBlock = kInt8Block;
  static constexpr std::int64_t kCodesInOne = 1;

  static LORA_INLINE void run(const Code* codes, float scale, std::int64_t count, float* out) {
    using Bytes = std::int8_t __attribute__((vector_size(8)));
    for (std::int64_t i = 0; i < count; i += kLanes) {
      Bytes eight;
      std::memcpy(&eight, codes + i, sizeof eight);
      store(out + i, __builtin_convertvector(eight, Floats) * scale);
    }
  }
  static LORA_INLINE float one(const Code* codes, float scale, std::int64_t i) {
    return static_cast<float>(codes[i]) * scale;
  }
};

// Vectors within a block; single values up to the first whole eight and behind the last one.
template <typename Format>
LORA_INLINE void widen(const typename Format::Code* codes, const float* scales, std::int64_t first,
                       std::int64_t count, float* out) {
  const std::int64_t end = first + count;
  for (std::int64_t i = first; i < end;) {
    const float scale = scales[i / Format::kBlock];
    const std::int64_t stop = std::min(end, (i / Format::kBlock + 1) * Format::kBlock);
    for (; i < stop && i % kLanes != 0; ++i) out[i - first] = Format::one(codes, scale, i);
    const std::int64_t body = (stop - i) / kLanes * kLanes;
    Format::run(codes + i / Format::kCodesInOne, scale, body, out + (i - first));
    for (i += body; i < stop; ++i) out[i - first] = Format::one(codes, scale, i);
  }
}

LORA_KERNEL void widen_nf4_range(const std::uint8_t* codes, const float* scales, std::int64_t first,
                                 std::int64_t count, float* out) {
  widen<Nf4>(codes, scales, first, count, out);
}

LORA_KERNEL void widen_int8_range(const std::int8_t* codes, const float* scales, std::int64_t first,
                                  std::int64_t count, float* out) {
  widen<Int8>(codes, scales, first, count, out);
}

}  // namespace

bool quantise_nf4(const float* values, std::int64_t count, std::uint8_t* codes, float* scales) {
  return code_nf4(values, count, codes, scales);
}

bool quantise_int8(const float* values, std::int64_t count, std::int8_t* codes, float* scales) {
  return code_int8(values, count, codes, scales);
}

void widen_nf4(const std::uint8_t* codes, const float* scales, std::int64_t first,
               std::int64_t count, float* out) {
  widen_nf4_range(codes, scales, first, count, out);
}

void widen_int8(const std::int8_t* codes, const float* scales, std::int64_t first,
                std::int64_t count, float* out) {
  widen_int8_range(codes, scales, first, count, out);
}

float nf4_value(int code) { return kNf4Values[code]; }

}  // namespace lora::engine
