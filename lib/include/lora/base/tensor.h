// A tensor as plain bytes: dtype, shape and contiguous row-major little-endian data.
//
// This is the only tensor type outside the engine. It owns nothing by itself: `keep_alive` holds
// whatever backs the bytes (a file mapping, a heap buffer), so copies are cheap and safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lora/base/dtype.h"

namespace lora {

struct Tensor {
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;         ///< empty for a scalar
  std::span<const std::byte> bytes;        ///< numel * bits / 8 bytes, possibly unaligned
  std::shared_ptr<const void> keep_alive;  ///< owner of `bytes`; null for static data

  /// Number of elements. The constructor of a Tensor from a file has checked it for overflow.
  std::int64_t numel() const;

  /// A tensor on the heap with the given values; `data` must have numel*bits/8 bytes.
  static Tensor from_bytes(DType dtype, std::vector<std::int64_t> shape,
                           std::vector<std::byte> data);
  static Tensor from_f32(std::vector<std::int64_t> shape, std::span<const float> values);
  static Tensor from_i64(std::vector<std::int64_t> shape, std::span<const std::int64_t> values);

  /// Values widened to f32 / f64; throws Error(unsupported) unless is_float(dtype).
  std::vector<float> to_f32() const;
  std::vector<double> to_f64() const;

  /// Same values in another float dtype (round-to-nearest-even); returns a cheap copy when equal.
  Tensor cast(DType target) const;
};

/// "[2, 3]", "[]" for a scalar: the spelling used in every message.
std::string shape_to_string(std::span<const std::int64_t> shape);

/// Tensors by name, ordered bytewise by name. Which naming scheme the names follow (peft_key,
/// base_name) is said where the map is used.
using TensorMap = std::map<std::string, Tensor>;

}  // namespace lora
