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

}  // namespace lora
