// Identity of one tensor: SHA-256 over its name, dtype, shape and bytes.
//
// Layout hashed: "lora.tensor/1\0", u64 length of the name, the name, u64 length of the dtype's
// spelling, the spelling, u64 number of extents, each extent as u64, u64 number of bytes, the
// bytes. All integers little endian. The same layout serves base.lock.json and lora_manifest.json.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "lora/base/sha256.h"
#include "lora/base/tensor.h"

namespace lora {

/// The same front to back, for bytes that are not all there at once.
class TensorHash {
 public:
  TensorHash(std::string_view name, DType dtype, std::span<const std::int64_t> shape,
             std::uint64_t bytes);
  void update(std::span<const std::byte> bytes) { hash_.update(bytes); }
  Digest finish() { return hash_.finish(); }

 private:
  Sha256 hash_;
};

Digest tensor_digest(std::string_view name, const Tensor& tensor);

/// The same in pieces of 4 MiB; `consumed` is called after each piece has been hashed (to drop its
/// pages, report progress, or stop by throwing).
Digest tensor_digest(std::string_view name, const Tensor& tensor,
                     const std::function<void(std::span<const std::byte>)>& consumed);

}  // namespace lora
