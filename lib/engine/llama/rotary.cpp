#include "engine/llama/rotary.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/div.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <numbers>

namespace lora::engine {
namespace {

// Long wavelengths are divided by `factor`, short ones kept, those between are blended.
at::Tensor llama3_bands(const at::Tensor& frequencies, const RopeConfig& rope) {
  const auto original = static_cast<double>(rope.original_max_position_embeddings);
  const double long_wave = original / rope.low_freq_factor;
  const double short_wave = original / rope.high_freq_factor;
  const at::Tensor wavelength = frequencies.reciprocal().mul(2 * std::numbers::pi);
  const at::Tensor scaled =
      at::where(wavelength.gt(long_wave), frequencies.div(rope.factor), frequencies);
  const at::Tensor smooth = wavelength.reciprocal()
                                .mul(original)
                                .sub(rope.low_freq_factor)
                                .div(rope.high_freq_factor - rope.low_freq_factor);
  const at::Tensor blended =
      smooth.neg().add(1).mul(scaled).div(rope.factor).add(smooth.mul(scaled));
  const at::Tensor is_between =
      wavelength.lt(short_wave).logical_not().logical_and(wavelength.gt(long_wave).logical_not());
  return at::where(is_between, blended, scaled);
}

}  // namespace

at::Tensor rotary_frequencies(const RopeConfig& rope, std::int64_t dim) {
  const at::Tensor exponents = at::arange(0, dim, 2, at::kLong).to(at::kFloat).div(dim);
  const at::Tensor plain = at::pow(rope.theta, exponents).reciprocal();
  switch (rope.type) {
    case RopeConfig::Type::plain:
      return plain;
    case RopeConfig::Type::linear:
      return plain.div(rope.factor);
    case RopeConfig::Type::llama3:
      return llama3_bands(plain, rope);
  }
  return plain;
}

void RotaryTable::reserve(std::int64_t positions) {
  if (cos_.defined() && cos_.size(0) >= positions) return;
  const std::int64_t size = cos_.defined() ? std::max(positions, 2 * cos_.size(0)) : positions;
  const at::Tensor angles = at::outer(at::arange(size, at::kFloat), frequencies_);
  cos_ = at::cos(angles);
  sin_ = at::sin(angles);
}

const float* RotaryTable::cos(std::int64_t position) const {
  return cos_.const_data_ptr<float>() + position * cos_.size(1);
}

const float* RotaryTable::sin(std::int64_t position) const {
  return sin_.const_data_ptr<float>() + position * sin_.size(1);
}

}  // namespace lora::engine
