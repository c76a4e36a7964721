#include "engine/llama/rotary.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/div.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tensor.h>
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

at::Tensor rotary_frequencies(const RopeConfig& rope, std::int64_t dim, bool is_long) {
  const at::Tensor exponents = at::arange(0, dim, 2, at::kLong).to(at::kFloat).div(dim);
  const at::Tensor plain = at::pow(rope.theta, exponents).reciprocal();
  switch (rope.type) {
    case RopeConfig::Type::plain:
      return plain;
    case RopeConfig::Type::linear:
      return plain.div(rope.factor);
    case RopeConfig::Type::llama3:
      return llama3_bands(plain, rope);
    case RopeConfig::Type::longrope:
      return at::pow(rope.theta, exponents)
          .mul(at::tensor(is_long ? rope.long_factor : rope.short_factor, at::kFloat))
          .reciprocal();
  }
  return plain;
}

RotaryTable::RotaryTable(const RopeConfig& rope, std::int64_t dim)
    : rope_(rope),
      dim_(static_cast<std::int64_t>(static_cast<double>(dim) * rope.rotary_fraction)),
      frequencies_(rotary_frequencies(rope, dim_)) {}

bool RotaryTable::reserve(std::int64_t positions) {
  const bool is_long = rope_.type == RopeConfig::Type::longrope &&
                       positions > rope_.original_max_position_embeddings;
  const bool has_changed = is_long != is_long_ && cos_.defined();
  if (is_long != is_long_) {
    is_long_ = is_long;
    frequencies_ = rotary_frequencies(rope_, dim_, is_long);
    cos_ = sin_ = at::Tensor();
  }
  if (cos_.defined() && cos_.size(0) >= positions) return has_changed;
  const std::int64_t size = cos_.defined() ? std::max(positions, 2 * cos_.size(0)) : positions;
  const at::Tensor angles = at::outer(at::arange(size, at::kFloat), frequencies_);
  cos_ = at::cos(angles).mul(rope_.attention_factor);
  sin_ = at::sin(angles).mul(rope_.attention_factor);
  return has_changed;
}

const float* RotaryTable::cos(std::int64_t position) const {
  return cos_.const_data_ptr<float>() + position * cos_.size(1);
}

const float* RotaryTable::sin(std::int64_t position) const {
  return sin_.const_data_ptr<float>() + position * sin_.size(1);
}

}  // namespace lora::engine
