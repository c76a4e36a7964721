#include "lora/base/tensor.h"

#include <cstring>
#include <utility>

#include "lora/base/checked.h"
#include "lora/base/error.h"

namespace lora {
namespace {

template <typename T>
Tensor from_values(DType dtype, std::vector<std::int64_t> shape, std::span<const T> values) {
  std::vector<std::byte> data(values.size_bytes());
  if (!data.empty()) std::memcpy(data.data(), values.data(), data.size());
  return Tensor::from_bytes(dtype, std::move(shape), std::move(data));
}

}  // namespace

std::int64_t Tensor::numel() const {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  return count;
}

Tensor Tensor::from_bytes(DType dtype, std::vector<std::int64_t> shape,
                          std::vector<std::byte> data) {
  const auto count = checked_numel(shape);
  const auto bits = count ? checked_mul(*count, bits_of(dtype)) : std::nullopt;
  if (!bits || *bits % 8 != 0 || *bits / 8 != data.size())
    throw Error(ErrorKind::internal, "tensor of shape " + shape_to_string(shape) + " and dtype " +
                                         std::string(to_string(dtype)) + " does not take " +
                                         std::to_string(data.size()) + " bytes");
  auto owner = std::make_shared<const std::vector<std::byte>>(std::move(data));
  const std::span<const std::byte> bytes(*owner);
  return {dtype, std::move(shape), bytes, std::move(owner)};
}

Tensor Tensor::from_f32(std::vector<std::int64_t> shape, std::span<const float> values) {
  return from_values(DType::f32, std::move(shape), values);
}

Tensor Tensor::from_i64(std::vector<std::int64_t> shape, std::span<const std::int64_t> values) {
  return from_values(DType::i64, std::move(shape), values);
}

std::vector<float> Tensor::to_f32() const {
  std::vector<float> values(static_cast<std::size_t>(numel()));
  widen(dtype, bytes.data(), std::span(values));
  return values;
}

std::vector<double> Tensor::to_f64() const {
  std::vector<double> values(static_cast<std::size_t>(numel()));
  widen(dtype, bytes.data(), std::span(values));
  return values;
}

Tensor Tensor::cast(DType target) const {
  if (target == dtype) return *this;
  std::vector<std::byte> data(static_cast<std::size_t>(numel()) * bits_of(target) / 8);
  if (dtype == DType::f64) {
    narrow(std::span<const double>(to_f64()), target, data.data());
  } else {
    narrow(std::span<const float>(to_f32()), target, data.data());
  }
  return from_bytes(target, shape, std::move(data));
}

std::string shape_to_string(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i != 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

}  // namespace lora
