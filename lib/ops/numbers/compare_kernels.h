// Loops over pairs of values, compiled for each level of instructions; every level gives the same
// bits (kernels.h).
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
  std::int64_t changed = 0;
  bool has_non_finite = false;
};

struct CompareKernels {
  std::string_view name;
  /// Adds pairs to `sums`, and writes to `steps` how many f32 values lie between a[i] and b[i]
  /// (+0 and -0 are one). With NaN or Inf on a side `has_non_finite` is set and nothing else means
  /// anything.
  void (*compare)(const float* a, const float* b, std::size_t count, Comparison& sums,
                  std::uint32_t* steps);
  /// Steps between little-endian 16-bit floats of any alignment, in their own dtype.
  void (*half_steps)(const std::byte* a, const std::byte* b, std::size_t count,
                     std::uint32_t* steps);
};

std::vector<CompareKernels> available_compare_kernels();
const CompareKernels& compare_kernels();

}  // namespace lora::numbers
