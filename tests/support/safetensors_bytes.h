// Writes safetensors files by hand, right or wrong.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "lora/format/safetensors.h"

namespace lora::testing {

/// Length, header as given (no padding), data.
inline std::string safetensors_bytes(std::string_view header, std::string_view data = {}) {
  std::string file;
  for (int i = 0; i < 8; ++i)
    file += static_cast<char>(static_cast<std::uint64_t>(header.size()) >> (8 * i));
  file += header;
  file += data;
  return file;
}

/// Parses bytes that stay owned by the result's tensors, under the name "test.safetensors". The
/// copy has exactly the size of the content, so that a sanitizer sees every read beyond it.
inline SafetensorsFile parse_bytes(std::string_view content) {
  auto owner = std::make_shared<const std::vector<char>>(content.begin(), content.end());
  const auto bytes = std::as_bytes(std::span(*owner));
  return parse_safetensors(bytes, std::move(owner), "test.safetensors");
}

}  // namespace lora::testing
