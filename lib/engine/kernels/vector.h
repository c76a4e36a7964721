// Eight floats at a time, on any processor.
//
// GCC's vector extension compiles to SSE, AVX2 or AVX-512 instructions depending on the function it
// is inlined into, and to plain code elsewhere. LORA_KERNEL compiles a function once for each level
// and picks one at run time, so one build runs everywhere. Tests of a single level define it
// themselves.
#pragma once

#include <cstdint>
#include <cstring>

#include "engine/kernels/kernels.h"

#pragma GCC diagnostic ignored "-Wpsabi"

#if defined(LORA_KERNEL)
#elif defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define LORA_KERNEL __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LORA_KERNEL
#endif
#define LORA_INLINE inline __attribute__((always_inline))

namespace lora::engine {

inline constexpr std::int64_t kLanes = 8;
using Floats = float __attribute__((vector_size(32)));
using Ints = std::int32_t __attribute__((vector_size(32)));
using Words = std::uint32_t __attribute__((vector_size(32)));
using Halves = std::uint16_t __attribute__((vector_size(16)));

LORA_INLINE Floats load(const float* p) {
  Floats v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
LORA_INLINE void store(float* p, const Floats& v) { std::memcpy(p, &v, sizeof v); }
LORA_INLINE Floats broadcast(float x) { return Floats{x, x, x, x, x, x, x, x}; }

/// bfloat16 is the upper half of a float.
LORA_INLINE Floats load(const Bf16* p) {
  Halves halves;
  std::memcpy(&halves, p, sizeof halves);
  return (Floats)(__builtin_convertvector(halves, Words) << 16);
}
/// The bits of the nearest bf16, ties to even; a NaN stays one.
LORA_INLINE Words rounded_bits(const Floats& v) {
  const Words bits = (Words)v;
  const Words rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const Words quiet = (bits >> 16) | 0x40U;
  return v == v ? rounded : quiet;
}
LORA_INLINE void store(Bf16* p, const Floats& v) {
  const Halves halves = __builtin_convertvector(rounded_bits(v), Halves);
  std::memcpy(p, &halves, sizeof halves);
}

/// One element at a time, for what does not fill a vector.
LORA_INLINE float load_one(const float* p) { return *p; }
LORA_INLINE float load_one(const Bf16* p) {
  const std::uint32_t bits = static_cast<std::uint32_t>(p->bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
LORA_INLINE void store_one(float* p, float v) { *p = v; }
LORA_INLINE void store_one(Bf16* p, float v) {
  std::uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  p->bits = static_cast<std::uint16_t>(v == v ? (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16
                                              : (bits >> 16) | 0x40U);
}

/// Sixteen at a time, for loops that multiply more than they load. Where a processor has shorter
/// vectors these are two or four of them.
inline constexpr std::int64_t kWideLanes = 16;
using Wide = float __attribute__((vector_size(64)));

LORA_INLINE Wide load_wide(const float* p) {
  Wide v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
using WideWords = std::uint32_t __attribute__((vector_size(64)));
using WideHalves = std::uint16_t __attribute__((vector_size(32)));

LORA_INLINE Wide load_wide(const Bf16* p) {
  WideHalves halves;
  std::memcpy(&halves, p, sizeof halves);
  return (Wide)(__builtin_convertvector(halves, WideWords) << 16);
}
LORA_INLINE void store_wide(float* p, const Wide& v) { std::memcpy(p, &v, sizeof v); }
LORA_INLINE void store_wide(Bf16* p, const Wide& v) {
  const WideWords bits = (WideWords)v;
  const WideWords rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const WideWords quiet = (bits >> 16) | 0x40U;
  const WideHalves halves = __builtin_convertvector(v == v ? rounded : quiet, WideHalves);
  std::memcpy(p, &halves, sizeof halves);
}

LORA_INLINE float sum_lanes(const Floats& v) {
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}
LORA_INLINE float sum_wide(const Wide& v) {
  Floats parts[2];
  std::memcpy(parts, &v, sizeof v);
  return sum_lanes(parts[0] + parts[1]);
}
LORA_INLINE Floats max_of(const Floats& a, const Floats& b) { return a > b ? a : b; }
LORA_INLINE Floats min_of(const Floats& a, const Floats& b) { return a < b ? a : b; }
LORA_INLINE float max_lane(const Floats& v) {
  float m = v[0];
  for (int i = 1; i < kLanes; ++i) m = v[i] > m ? v[i] : m;
  return m;
}

/// e^x within 2 ulp: x = n ln 2 + r, a polynomial for e^r (Cephes' coefficients), 2^n through the
/// exponent bits. Below -87.3 the result is the smallest normal number, above 88 it saturates.
LORA_INLINE Floats exp_of(const Floats& value) {
  const Floats x = min_of(max_of(value, broadcast(-87.3F)), broadcast(88.0F));
  const Floats magic = broadcast(12582912.0F);  // 1.5 * 2^23: adding it rounds to an integer
  const Floats shifted = x * 1.44269504088896341F + magic;
  const Floats n = shifted - magic;
  const Floats r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  Floats p = broadcast(1.9875691500e-4F);
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1.0F;
  const Ints power = ((Ints)shifted << 23) + 0x3F800000;
  return p * (Floats)power;
}

/// tanh within 3 ulp: a polynomial (Cephes' coefficients) where 1 - 2 / (e^2x + 1) would cancel.
LORA_INLINE Floats tanh_of(const Floats& x) {
  const Floats z = x * x;
  Floats p = broadcast(-5.70498872745e-3F);
  p = p * z + 2.06390887954e-2F;
  p = p * z - 5.37397155531e-2F;
  p = p * z + 1.33314422036e-1F;
  p = p * z - 3.33332819422e-1F;
  const Floats near = p * z * x + x;
  const Floats far = 1.0F - 2.0F / (exp_of(Floats(2.0F * x)) + 1.0F);
  return z < 0.390625F ? near : far;
}

/// The same functions for what does not fill a vector.
LORA_INLINE float exp_of(const float& x) { return exp_of(broadcast(x))[0]; }
LORA_INLINE float tanh_of(const float& x) { return tanh_of(broadcast(x))[0]; }

}  // namespace lora::engine
