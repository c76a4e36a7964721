// What the sparse methods do to values, element by element: trimming to the largest magnitudes
// (TIES, magnitude pruning), random dropping (DARE), and the vote on signs (TIES).
//
// Values come in runs, so that an update need never exist as a whole.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "lora/base/random.h"
#include "lora/ops/combine.h"

namespace lora::combining {

/// Keeps the floor(density * count) values of largest magnitude, magnitudes compared as f32; of
/// equal ones at the border those that come first. All values pass three times in the same order:
/// through `see` until `settle`, again through `see` until `settle`, and through `keep`.
class Trim {
 public:
  Trim(std::int64_t count, double density);

  bool is_needed() const { return kept_ < count_; }
  void see(std::span<const double> values);
  void settle();
  /// Sets the values that are not kept to zero.
  void keep(std::span<double> values);

 private:
  std::int64_t count_, kept_;
  int pass_ = 0;
  std::uint32_t border_ = 0;    // bits of the smallest magnitude kept, as far as known
  std::int64_t at_border_ = 0;  // how many of exactly that magnitude are kept
  std::vector<std::int64_t> bins_;
};

/// Keeps each value with probability `density` and divides it by `density`. Value i of a stream is
/// kept when word i % 4 of block i / 4 of the counter-based generator (lora/base/random.h), read as
/// a 32-bit number, is below density * 2^32.
class Drop {
 public:
  Drop(std::uint64_t seed, std::uint64_t stream, double density);

  /// Values [first, first + size) of the stream.
  void keep(std::span<double> values, std::uint64_t first);

 private:
  CounterRandom random_;
  double density_;
  std::uint64_t below_;
};

/// The sum over tasks of weights[i] * values[i], element by element, into `out`.
void add_weighted(std::span<const std::span<double>> values, std::span<const double> weights,
                  std::span<double> out);

/// The mean of weights[i] * values[i] over the tasks whose vote has the elected sign: that of the
/// sum of all votes (`total`) or of the sum of their signs (`frequency`); plus where that is zero.
/// A task votes with weights[i] * values[i], or, as in PEFT, with values[i] (`is_unweighted`).
/// Zeros do not count; the mean of none is zero.
void elect(std::span<const std::span<double>> values, std::span<const double> weights,
           MajoritySign sign, bool is_unweighted, std::span<double> out);

}  // namespace lora::combining
