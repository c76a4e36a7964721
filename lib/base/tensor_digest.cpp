#include "lora/base/tensor_digest.h"

namespace lora {

Digest tensor_digest(std::string_view name, const Tensor& tensor) {
  const std::string_view dtype = to_string(tensor.dtype);
  Sha256 hash;
  hash.update(std::string_view("lora.tensor/1\0", 14));
  hash.update_u64(name.size()).update(name);
  hash.update_u64(dtype.size()).update(dtype);
  hash.update_u64(tensor.shape.size());
  for (const std::int64_t extent : tensor.shape)
    hash.update_u64(static_cast<std::uint64_t>(extent));
  hash.update_u64(tensor.bytes.size()).update(tensor.bytes);
  return hash.finish();
}

}  // namespace lora
