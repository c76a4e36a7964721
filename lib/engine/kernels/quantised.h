// Matrices in blocks of few bits: coded once, widened to f32 a stretch at a time.
//
// A matrix is the row-major sequence of its values, cut into blocks that may cross rows. Each block
// has one f32 scale. All functions run on the calling thread.
#pragma once

#include <cstdint>

namespace lora::engine {

/// nf4: blocks of 64 values, scale = the largest magnitude, code = index of the nearest of sixteen
/// quantiles of a normal distribution; two codes a byte, the first in the upper half. Codes and
/// values are those of bitsandbytes without double quantisation.
inline constexpr std::int64_t kNf4Block = 64;

/// int8: blocks of 128 values, scale = largest magnitude / 127, code = value / scale rounded to the
/// nearest, halves to even.
inline constexpr std::int64_t kInt8Block = 128;

/// Codes of `count` values that begin with a block; `codes` has room for (count + 1) / 2 bytes, and
/// `scales` for every block begun. Returns false when a value is not finite (codes are undefined
/// then).
bool quantise_nf4(const float* values, std::int64_t count, std::uint8_t* codes, float* scales);
/// The same with one byte a value.
bool quantise_int8(const float* values, std::int64_t count, std::int8_t* codes, float* scales);

/// The values `first` .. `first` + `count` of a matrix whose codes and scales are given whole.
void widen_nf4(const std::uint8_t* codes, const float* scales, std::int64_t first,
               std::int64_t count, float* out);
void widen_int8(const std::int8_t* codes, const float* scales, std::int64_t first,
                std::int64_t count, float* out);

/// Value of one code before it is scaled.
float nf4_value(int code);

}  // namespace lora::engine
