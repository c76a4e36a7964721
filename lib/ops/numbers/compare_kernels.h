// Loops over pairs of values, compiled for each level of instructions; every level gives the same
// bits (kernels.h).
//
// A step is the distance of two neighbouring values of a dtype; +0 and -0 are one value.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace lora::numbers {

/// Running sums over pairs of finite values.
struct Comparison {
  std::array<double, 8> squares{}, squares_a{}, squares_b{};  ///< of a - b, a, b; by i % 8
  double largest = 0;                                         ///< max |a - b|
};

/// What a run of steps holds.
struct StepRange {
  std::uint32_t any = 0;   ///< bits that are set in some step
  std::uint32_t peak = 0;  ///< largest magnitude bits on either side: finite below those of Inf
};

/// Steps are written less 2^15 or 2^31, so that signed comparisons order them.
struct CompareKernels {
  std::string_view name;
  /// Adds pairs to `sums`; with NaN or Inf on a side `sums` means nothing any more.
  void (*compare_f32)(const float* a, const float* b, std::size_t count, Comparison& sums);
  /// The same for little-endian BF16 of any alignment.
  void (*compare_bf16)(const std::byte* a, const std::byte* b, std::size_t count, Comparison& sums);
  /// Steps between 16-bit floats (F16 or BF16) of any alignment; without meaning where a value is
  /// NaN.
  StepRange (*steps_16)(const std::byte* a, const std::byte* b, std::size_t count,
                        std::int16_t* steps);
  StepRange (*steps_32)(const float* a, const float* b, std::size_t count, std::int32_t* steps);
  /// Adds to counts[k] how many of at most 2^16 steps are 2^k or more, for k < bits.
  void (*count_16)(const std::int16_t* steps, std::size_t count, int bits, std::int64_t* counts);
  void (*count_32)(const std::int32_t* steps, std::size_t count, int bits, std::int64_t* counts);
};

std::vector<CompareKernels> available_compare_kernels();
const CompareKernels& compare_kernels();

}  // namespace lora::numbers
