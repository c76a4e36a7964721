#include "lora/base/tensor_digest.h"

#include <algorithm>

namespace lora {

TensorHash::TensorHash(std::string_view name, DType dtype, std::span<const std::int64_t> shape,
                       std::uint64_t bytes) {
  const std::string_view spelling = to_string(dtype);
  hash_.update(std::string_view("lora.tensor/1\0", 14));
  hash_.update_u64(name.size()).update(name);
  hash_.update_u64(spelling.size()).update(spelling);
  hash_.update_u64(shape.size());
  for (const std::int64_t extent : shape) hash_.update_u64(static_cast<std::uint64_t>(extent));
  hash_.update_u64(bytes);
}

Digest tensor_digest(std::string_view name, const Tensor& tensor) {
  return tensor_digest(name, tensor, [](std::span<const std::byte>) {});
}

Digest tensor_digest(std::string_view name, const Tensor& tensor,
                     const std::function<void(std::span<const std::byte>)>& consumed) {
  constexpr std::size_t kPiece = std::size_t{4} << 20;
  TensorHash hash(name, tensor.dtype, tensor.shape, tensor.bytes.size());
  for (auto rest = tensor.bytes; !rest.empty();) {
    const auto piece = rest.first(std::min(rest.size(), kPiece));
    hash.update(piece);
    consumed(piece);
    rest = rest.subspan(piece.size());
  }
  return hash.finish();
}

}  // namespace lora
