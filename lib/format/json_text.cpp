#include "format/json_text.h"

namespace lora {

bool has_longer_token(std::string_view text, std::size_t most) {
  if (text.size() <= most) return false;
  constexpr std::string_view kBetween = " \t\r\n,:[]{}";
  std::size_t at = 0;
  while ((at = text.find_first_not_of(kBetween, at)) != std::string_view::npos) {
    const std::size_t start = at;
    if (text[at] == '"') {
      ++at;
      while (at < text.size() && text[at] != '"') at += text[at] == '\\' ? 2 : 1;
      ++at;
    } else {
      at = text.find_first_of(kBetween, at);
    }
    if (at > text.size()) at = text.size();
    if (at - start > most) return true;
  }
  return false;
}

std::string reason_of(const nlohmann::detail::exception& failure) {
  std::string reason = failure.what();
  if (const auto colon = reason.find(": "); colon != std::string::npos)
    reason = reason.substr(colon + 2);
  return reason.substr(0, reason.find("; last read"));
}

std::string python_number(std::string_view text, std::size_t position) {
  if (position == 0 || position > text.size()) return {};
  const std::string_view rest = text.substr(position - 1);
  if (rest.starts_with("NaN")) return "NaN";
  if (!rest.starts_with("Infinity")) return {};
  return position > 1 && text[position - 2] == '-' ? "-Infinity" : "Infinity";
}

}  // namespace lora
