// Counter-based random numbers that are the same on every machine.
//
// Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3", 2011):
// a value depends only on (seed, stream, index), so any part can be drawn again at any time, in any
// order, on any number of threads. Uniform and normal values use integer arithmetic and exact
// double operations only, never a libm function whose last bit may differ between machines.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace lora {

class CounterRandom {
 public:
  /// `stream` separates independent sequences of one seed (a tensor, a dropout site, an epoch).
  CounterRandom(std::uint64_t seed, std::uint64_t stream);

  /// Four independent 32-bit words for this index.
  std::array<std::uint32_t, 4> block(std::uint64_t index) const;

  /// Uniform in [0, 1) with 53 random bits.
  double uniform(std::uint64_t index) const;

  /// Standard normal by the sum of 12 uniforms less 6 (Irwin-Hall; variance exactly 1, range +-6).
  double normal(std::uint64_t index) const;

  /// Integer in [0, bound), bound > 0; bias below bound * 2^-64.
  std::uint64_t below(std::uint64_t index, std::uint64_t bound) const;

 private:
  std::uint64_t seed_;
  std::uint64_t stream_;
};

/// FNV-1a of a name: the stream of a tensor.
std::uint64_t stream_of(std::string_view name);

}  // namespace lora
