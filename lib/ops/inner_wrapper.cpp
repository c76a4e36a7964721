#include "ops/inner_wrapper.h"

#include <string_view>

namespace lora {

std::optional<std::string> without_inner(const std::string& path,
                                         const std::set<std::string>& base_paths) {
  constexpr std::string_view kInner = ".inner.";
  const std::string dotted = "." + path + ".";
  const std::size_t found = dotted.find(kInner);
  if (found == std::string::npos || base_paths.contains(path)) return std::nullopt;
  const std::string left = dotted.substr(0, found + 1) + dotted.substr(found + kInner.size());
  if (left.size() < 3) return std::nullopt;
  const std::string plain = left.substr(1, left.size() - 2);
  return base_paths.contains(plain) ? std::optional(plain) : std::nullopt;
}

}  // namespace lora
