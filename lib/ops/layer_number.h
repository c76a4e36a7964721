// The layer that a module path belongs to: its first component that is a number.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lora {

/// "model.layers.11.self_attn.q_proj" -> 11; nullopt when no component is a number.
inline std::optional<std::int64_t> layer_number(std::string_view module_path) {
  while (!module_path.empty()) {
    const std::string_view part = module_path.substr(0, module_path.find('.'));
    std::int64_t number = 0;
    const auto end = std::from_chars(part.data(), part.data() + part.size(), number);
    if (!part.empty() && part.front() != '-' && end.ec == std::errc() &&
        end.ptr == part.data() + part.size())
      return number;
    module_path.remove_prefix(std::min(module_path.size(), part.size() + 1));
  }
  return std::nullopt;
}

/// The largest layer number of these paths.
inline std::optional<std::int64_t> last_layer(const std::vector<std::string>& module_paths) {
  std::optional<std::int64_t> last;
  for (const std::string& path : module_paths)
    if (const auto number = layer_number(path)) last = std::max(last.value_or(0), *number);
  return last;
}

}  // namespace lora
