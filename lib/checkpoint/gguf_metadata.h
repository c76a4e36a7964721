// Metadata of a GGUF file that is read as a model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "lora/base/error.h"
#include "lora/base/tensor.h"
#include "lora/format/gguf.h"
#include "lora/format/json.h"

namespace lora {

Error gguf_fault(const GgufFile& file, ErrorKind kind, const std::string& reason);

/// Throws Error(malformed) when it is missing.
const GgufTensor& required_tensor(const GgufFile& file, const std::string& name);

/// The keys below one architecture's name.
class GgufMetadata {
 public:
  GgufMetadata(const GgufFile& file, const std::string& architecture)
      : file_(file), prefix_(architecture + ".") {}

  /// At least 1. Throws Error(malformed) for anything else, and without a fallback when missing.
  std::int64_t extent(const std::string& key, std::optional<std::int64_t> fallback = {}) const;
  /// Finite and above 0, in the shortest decimal that the stored F32 is. Throws Error(malformed).
  double positive(const std::string& key, double fallback) const;
  std::optional<std::int64_t> integer(const std::string& key) const {
    return file_.integer(prefix_ + key);
  }
  std::optional<bool> flag(const std::string& key) const { return file_.flag(prefix_ + key); }
  std::optional<std::string_view> text(const std::string& key) const {
    return file_.text(prefix_ + key);
  }
  bool has(const std::string& key) const { return file_.metadata.contains(prefix_ + key); }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

/// What the metadata of a decoder says of its size.
struct GgufSizes {
  std::int64_t layers, width, inner, heads, kv_heads, head, rotated, positions, vocabulary;
};

/// Throws Error(malformed) for sizes that cannot be.
GgufSizes gguf_sizes(const GgufFile& file, const GgufMetadata& metadata);

/// rope_parameters of the rotary embedding. Throws Error(unsupported) for scaling that the file
/// does not fully tell.
JsonObject gguf_rope(const GgufFile& file, const GgufMetadata& metadata, const GgufSizes& sizes);

}  // namespace lora
