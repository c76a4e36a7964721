#include <charconv>

#include "lora/adapter/config.h"

namespace lora {

std::optional<std::pair<int, int>> peft_release(const AdapterConfig& config) {
  if (!config.peft_version) return std::nullopt;
  const std::string& text = *config.peft_version;
  const char* const end = text.data() + text.size();
  int major = 0;
  int minor = 0;
  const auto first = std::from_chars(text.data(), end, major);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != '.') return std::nullopt;
  if (std::from_chars(first.ptr + 1, end, minor).ec != std::errc()) return std::nullopt;
  return std::pair(major, minor);
}

}  // namespace lora
