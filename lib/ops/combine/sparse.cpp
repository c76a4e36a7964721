#include "ops/combine/sparse.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace lora::combining {
namespace {

constexpr std::size_t kBins = 1U << 16;

// Magnitudes of floats are in the order of their bits without the sign.
std::uint32_t magnitude_bits(double value) {
  return std::bit_cast<std::uint32_t>(std::fabs(static_cast<float>(value)));
}

double sign_of(double value) { return static_cast<double>((value > 0) - (value < 0)); }

}  // namespace

Trim::Trim(std::int64_t count, double density)
    : count_(count),
      kept_(density >= 1 ? count
                         : static_cast<std::int64_t>(density * static_cast<double>(count))) {
  if (is_needed()) bins_.assign(kBins, 0);
}

void Trim::see(std::span<const double> values) {
  if (!is_needed()) return;
  for (const double value : values) {
    const std::uint32_t bits = magnitude_bits(value);
    if (pass_ == 0) {
      ++bins_[bits >> 16];
    } else if (bits >> 16 == border_ >> 16) {
      ++bins_[bits & 0xFFFF];
    }
  }
}

void Trim::settle() {
  if (!is_needed()) return;
  if (pass_ == 0) at_border_ = kept_;
  std::size_t bin = kBins;
  // The bin that holds the last value kept; at_border_ becomes what it must give.
  while (bin > 0 && bins_[bin - 1] < at_border_) at_border_ -= bins_[--bin];
  bin = bin == 0 ? 0 : bin - 1;
  border_ = pass_ == 0 ? static_cast<std::uint32_t>(bin) << 16
                       : border_ | static_cast<std::uint32_t>(bin);
  if (++pass_ == 1) {
    std::fill(bins_.begin(), bins_.end(), 0);
  } else {
    bins_ = {};
  }
}

void Trim::keep(std::span<double> values) {
  if (!is_needed()) return;
  for (double& value : values) {
    const std::uint32_t bits = magnitude_bits(value);
    if (bits > border_ || (bits == border_ && at_border_ > 0 && kept_ > 0)) {
      at_border_ -= bits == border_;
    } else {
      value = 0;
    }
  }
}

Drop::Drop(std::uint64_t seed, std::uint64_t stream, double density)
    : random_(seed, stream),
      density_(density),
      below_(static_cast<std::uint64_t>(std::ldexp(density, 32))) {}

void Drop::keep(std::span<double> values, std::uint64_t first) {
  if (density_ >= 1) return;
  std::array<std::uint32_t, 4> words{};
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint64_t index = first + i;
    if (i == 0 || index % 4 == 0) words = random_.block(index / 4);
    values[i] = words[index % 4] < below_ ? values[i] / density_ : 0;
  }
}

void add_weighted(std::span<const std::span<double>> values, std::span<const double> weights,
                  std::span<double> out) {
  for (std::size_t k = 0; k < out.size(); ++k) {
    double sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i) sum += weights[i] * values[i][k];
    out[k] = sum;
  }
}

void elect(std::span<const std::span<double>> values, std::span<const double> weights,
           MajoritySign sign, bool is_unweighted, std::span<double> out) {
  for (std::size_t k = 0; k < out.size(); ++k) {
    double votes = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double vote = is_unweighted ? values[i][k] : weights[i] * values[i][k];
      votes += sign == MajoritySign::total ? vote : sign_of(vote);
    }
    const double elected = votes >= 0 ? 1 : -1;
    double sum = 0;
    double count = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double weighted = weights[i] * values[i][k];
      if (sign_of(is_unweighted ? values[i][k] : weighted) != elected) continue;
      sum += weighted;
      ++count;
    }
    out[k] = count == 0 ? 0 : sum / count;
  }
}

}  // namespace lora::combining
