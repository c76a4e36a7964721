#include "engine/bridge.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstring>

#include "lora/base/error.h"

namespace lora::engine {

at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return at::kDouble;
    case DType::f32:
      return at::kFloat;
    case DType::f16:
      return at::kHalf;
    case DType::bf16:
      return at::kBFloat16;
    case DType::i64:
      return at::kLong;
    case DType::i32:
      return at::kInt;
    case DType::u8:
      return at::kByte;
    case DType::boolean:
      return at::kBool;
    default:
      throw Error(ErrorKind::unsupported, "the engine cannot compute with tensors of dtype " +
                                              std::string(to_string(dtype)) +
                                              ", expected F32, BF16, F16 or F64");
  }
}

DType dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return DType::f64;
    case at::kFloat:
      return DType::f32;
    case at::kHalf:
      return DType::f16;
    case at::kBFloat16:
      return DType::bf16;
    case at::kLong:
      return DType::i64;
    default:
      throw Error(ErrorKind::internal, "a tensor of an unexpected type left the engine");
  }
}

at::Tensor view_of(const Tensor& tensor) {
  const at::ScalarType type = scalar_type(tensor.dtype);
  const std::size_t element = bits_of(tensor.dtype) / 8;
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.bytes.data());
  if (tensor.bytes.empty() || address % element != 0) {
    at::Tensor copy = at::empty(tensor.shape, type);
    if (!tensor.bytes.empty())
      std::memcpy(copy.mutable_data_ptr(), tensor.bytes.data(), tensor.bytes.size());
    return copy;
  }
  auto* data = const_cast<std::byte*>(tensor.bytes.data());
  return at::from_blob(
      data, tensor.shape, [owner = tensor.keep_alive](void*) {}, at::TensorOptions().dtype(type));
}

at::Tensor convert(const Tensor& tensor, at::ScalarType type) {
  if (!is_float(tensor.dtype))
    throw Error(ErrorKind::unsupported, "found dtype " + std::string(to_string(tensor.dtype)) +
                                            ", expected F32, BF16, F16 or F64");
  return view_of(tensor).to(type);
}

Tensor to_lora(const at::Tensor& tensor) {
  auto owner = std::make_shared<at::Tensor>(tensor.contiguous());
  Tensor result;
  result.dtype = dtype_of(*owner);
  result.shape = owner->sizes().vec();
  result.bytes = {static_cast<const std::byte*>(owner->const_data_ptr()),
                  static_cast<std::size_t>(owner->nbytes())};
  result.keep_alive = std::move(owner);
  return result;
}

}  // namespace lora::engine
