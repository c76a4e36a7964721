// Vectors of the size that a processor has, and the levels that kernels are compiled for.
//
// GCC's and clang's vector extension compiles to plain, AVX2 or AVX-512 code depending on the
// function it is inlined into. Bodies are templates on the size of a register, so that every
// variable is one register; a body never calls anything that is not inlined into it.
#pragma once

#include <cstddef>
#include <cstdint>

#define LORA_INLINE inline __attribute__((always_inline))
#if defined(__x86_64__) && defined(__GNUC__)
#define LORA_HAS_LEVELS 1
#define LORA_AVX2 __attribute__((target("arch=x86-64-v3")))
#define LORA_AVX512 __attribute__((target("arch=x86-64-v4")))
#endif

namespace lora::numbers {

#ifdef LORA_HAS_LEVELS
/// Whether this processor runs what LORA_AVX2 and LORA_AVX512 compile to.
inline bool has_avx2() {
  return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 &&
         __builtin_cpu_supports("bmi2") != 0;
}
inline bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") != 0 &&
         __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512cd") != 0 &&
         __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0;
}
#endif

/// One register of `Bytes` bytes of doubles, and as many floats and words as it has doubles.
template <int Bytes>
struct Register {
  static constexpr int kLanes = Bytes / 8;
  typedef double Doubles __attribute__((vector_size(Bytes)));
  typedef double LooseDoubles __attribute__((vector_size(Bytes), aligned(8), may_alias));
  typedef float Floats __attribute__((vector_size(Bytes / 2)));
  typedef float LooseFloats __attribute__((vector_size(Bytes / 2), aligned(1), may_alias));
  typedef std::int32_t Ints __attribute__((vector_size(Bytes / 2)));
  typedef std::uint32_t Words __attribute__((vector_size(Bytes / 2)));
  typedef std::uint16_t LooseHalves __attribute__((vector_size(Bytes / 4), aligned(1), may_alias));
  // Twice as many values: a register of floats, and two of doubles.
  typedef double DoublePairs __attribute__((vector_size(2 * Bytes)));
  typedef float FullFloats __attribute__((vector_size(Bytes)));
  typedef float LooseFullFloats __attribute__((vector_size(Bytes), aligned(1), may_alias));
  typedef std::uint32_t FullWords __attribute__((vector_size(Bytes)));
  typedef std::uint16_t LooseFullHalves
      __attribute__((vector_size(Bytes / 2), aligned(1), may_alias));
};

/// Widens a register of floats to two of doubles. GCC 12 needs this many values at once to find the
/// instruction that does it.
template <int Bytes>
LORA_INLINE void widen_pair(const typename Register<Bytes>::FullFloats& x,
                            typename Register<Bytes>::Doubles& low,
                            typename Register<Bytes>::Doubles& high) {
  const auto wide = __builtin_convertvector(x, typename Register<Bytes>::DoublePairs);
  if constexpr (Bytes == 16) {
    low = __builtin_shufflevector(wide, wide, 0, 1);
    high = __builtin_shufflevector(wide, wide, 2, 3);
  } else if constexpr (Bytes == 32) {
    low = __builtin_shufflevector(wide, wide, 0, 1, 2, 3);
    high = __builtin_shufflevector(wide, wide, 4, 5, 6, 7);
  } else {
    low = __builtin_shufflevector(wide, wide, 0, 1, 2, 3, 4, 5, 6, 7);
    high = __builtin_shufflevector(wide, wide, 8, 9, 10, 11, 12, 13, 14, 15);
  }
}

}  // namespace lora::numbers
