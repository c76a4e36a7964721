#include "lora/base/tensor_digest.h"

#include <algorithm>

namespace lora {
namespace {

Sha256 hash_header(std::string_view name, const Tensor& tensor) {
  const std::string_view dtype = to_string(tensor.dtype);
  Sha256 hash;
  hash.update(std::string_view("lora.tensor/1\0", 14));
  hash.update_u64(name.size()).update(name);
  hash.update_u64(dtype.size()).update(dtype);
  hash.update_u64(tensor.shape.size());
  for (const std::int64_t extent : tensor.shape)
    hash.update_u64(static_cast<std::uint64_t>(extent));
  hash.update_u64(tensor.bytes.size());
  return hash;
}

}  // namespace

Digest tensor_digest(std::string_view name, const Tensor& tensor) {
  return hash_header(name, tensor).update(tensor.bytes).finish();
}

Digest tensor_digest(std::string_view name, const Tensor& tensor,
                     const std::function<void(std::span<const std::byte>)>& consumed) {
  constexpr std::size_t kPiece = std::size_t{4} << 20;
  Sha256 hash = hash_header(name, tensor);
  for (auto rest = tensor.bytes; !rest.empty();) {
    const auto piece = rest.first(std::min(rest.size(), kPiece));
    hash.update(piece);
    consumed(piece);
    rest = rest.subspan(piece.size());
  }
  return hash.finish();
}

}  // namespace lora
