// The loops that touch every value, compiled for each level of instructions and chosen at run time.
//
// Every level gives the same bits: sums have eight lanes whatever the register size, element i of a
// run adds to lane i % 8, and products of f32 values are exact in f64.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

namespace lora::numbers {

inline constexpr std::size_t kLanes = 8;

/// Running figures of finite values.
struct Scan {
  double shift = 0;  ///< subtracted from every value, so that nothing cancels far from zero
  std::array<double, kLanes> sum{}, squares{};  ///< of (value - shift)
  double min = std::numeric_limits<double>::infinity();
  double max = -std::numeric_limits<double>::infinity();
  std::int64_t zeros = 0;
  std::int64_t small = 0;  ///< zeros and values below the smallest normal one
  bool has_non_finite = false;
};

struct Kernels {
  std::string_view name;
  /// Adds a run to `scan`. Values below `smallest_normal` count as small. When the run holds NaN or
  /// Inf, `has_non_finite` is set and nothing else of `scan` means anything.
  void (*scan)(const float* values, std::size_t count, float smallest_normal, Scan& scan);
  /// Widens little-endian 16-bit floats of any alignment; exact, subnormals included.
  void (*widen_f16)(const std::byte* source, std::size_t count, float* out);
  void (*widen_bf16)(const std::byte* source, std::size_t count, float* out);
  /// Adds p^T q to an 8 x 8 tile of c (rows `stride` apart), with p and q [count, 8], in the order
  /// of their rows.
  void (*multiply)(const double* p, const double* q, std::size_t count, double* c,
                   std::size_t stride);
  /// Sums the rows of p [count, 8] into `sums` [8], in their order.
  void (*add_rows)(const double* p, std::size_t count, double* sums);
};

/// The levels this processor can run, plain code first.
std::vector<Kernels> available_kernels();
/// The best of them.
const Kernels& kernels();

}  // namespace lora::numbers
