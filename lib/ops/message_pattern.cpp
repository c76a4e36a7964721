#include <algorithm>
#include <cctype>

#include "lora/ops/finding_filter.h"

namespace lora {
namespace {

constexpr std::size_t kShortestDigest = 8;

bool is_digit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }
bool is_name_part(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}

// A word is what may be a name or a number: name characters, and points and signs inside it.
std::size_t word_end(std::string_view text, std::size_t start) {
  std::size_t end = start;
  while (end < text.size()) {
    const bool continues =
        is_name_part(text[end]) ||
        (text[end] == '.' && end + 1 < text.size() && is_name_part(text[end + 1])) ||
        // the sign of an exponent: 1e-05
        ((text[end] == '-' || text[end] == '+') && end > start + 1 && text[end - 1] == 'e' &&
         is_digit(text[end - 2]) && end + 1 < text.size() && is_digit(text[end + 1]));
    if (!continues) break;
    ++end;
  }
  return end;
}

bool is_number(std::string_view word) {
  const auto digits = [&word] {
    std::size_t count = 0;
    while (count < word.size() && is_digit(word[count])) ++count;
    word.remove_prefix(count);
    return count != 0;
  };
  if (word == "nan" || word == "inf") return true;
  if (!digits()) return false;
  if (word.starts_with('.')) {
    word.remove_prefix(1);
    if (!digits()) return false;
  }
  if (word.starts_with('e')) {
    word.remove_prefix(1);
    if (word.starts_with('-') || word.starts_with('+')) word.remove_prefix(1);
    if (!digits()) return false;
  }
  return word.empty() || word == "x";  // "times 0.25x"
}

bool is_digest(std::string_view word) {
  return word.size() >= kShortestDigest && std::any_of(word.begin(), word.end(), is_digit) &&
         std::all_of(word.begin(), word.end(),
                     [](char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; });
}

}  // namespace

std::string message_pattern(std::string_view message) {
  std::string pattern;
  for (std::size_t i = 0; i < message.size();) {
    if (!is_name_part(message[i])) {
      pattern += message[i++];
      continue;
    }
    const std::size_t end = word_end(message, i);
    const std::string_view word = message.substr(i, end - i);
    if (is_number(word) || is_digest(word)) {
      // The sign goes with the number; a dash between two names stays.
      const bool has_sign = pattern.ends_with('-') &&
                            (pattern.size() == 1 || !is_name_part(pattern[pattern.size() - 2]));
      if (has_sign) pattern.pop_back();
      pattern += '#';
    } else {
      pattern += word;
    }
    i = end;
  }
  return pattern;
}

}  // namespace lora
