#include "format/in_quotes.h"

namespace lora {

std::string printable(std::string_view text) {
  constexpr std::size_t kLongest = 120;
  std::string shown;
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    shown += byte < 0x20 || byte >= 0x7F ? '?' : c;
  }
  if (text.size() > kLongest) shown += "...";
  return shown;
}

std::string in_quotes(std::string_view text) { return '"' + printable(text) + '"'; }

}  // namespace lora
