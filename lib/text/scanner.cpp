#include "text/scanner.h"

#include <algorithm>
#include <array>

#include "text/unicode_ranges.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::size_t kLastAssigned = 0x323AF;  // end of the last block of letters

bool is_newline(char c) { return c == '\r' || c == '\n'; }

// Length of 's 't 'm 'd 're 've 'll after the apostrophe at `start`, 0 when there is none.
std::size_t contraction(std::string_view text, std::size_t start, bool any_case) {
  const auto letter = [&](std::size_t i) -> char {
    if (start + i >= text.size()) return '\0';
    const char c = text[start + i];
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  const char first = letter(1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  // U+017F, the long s, folds to s.
  if (any_case && text.substr(start + 1).starts_with("\xC5\xBF")) return 3;
  const char second = letter(2);
  if ((first == 'r' || first == 'v') && second == 'e') return 3;
  return first == 'l' && second == 'l' ? 3 : 0;
}

}  // namespace

std::string_view expression_of(KnownPattern pattern) {
  return pattern == KnownPattern::gpt2 ? kGpt2 : pattern == KnownPattern::llama3 ? kLlama3 : kQwen2;
}

std::optional<KnownPattern> known_pattern(std::string_view expression) {
  for (const KnownPattern pattern : {KnownPattern::gpt2, KnownPattern::llama3, KnownPattern::qwen2})
    if (expression == expression_of(pattern)) return pattern;
  return std::nullopt;
}

Scanner::Scanner(KnownPattern pattern) : pattern_(pattern), classes_(kLastAssigned + 1, other) {
  const auto mark = [&](std::uint32_t first, std::uint32_t last, Class kind) {
    for (std::uint32_t c = first; c <= last && c <= kLastAssigned; ++c) classes_[c] = kind;
  };
  for (const CodePointRange range : letter_ranges()) mark(range.first, range.last, letter);
  for (const CodePointRange range : number_ranges()) mark(range.first, range.last, number);
  for (std::uint32_t c = 0; c <= 0x3000; ++c)
    if (is_white_space(c)) classes_[c] = space;
}

inline Scanner::Character Scanner::at(std::string_view text, std::size_t position) const {
  std::size_t length = 0;
  const std::uint32_t code_point = utf8_at(text, position, length);
  return {code_point < classes_.size() ? static_cast<Class>(classes_[code_point]) : other, length};
}

inline std::size_t Scanner::run_of(Class kind, std::string_view text, std::size_t position) const {
  while (position < text.size()) {
    const Character character = at(text, position);
    if (character.kind != kind) break;
    position += character.length;
  }
  return position;
}

std::size_t Scanner::next(std::string_view text, std::size_t start) const {
  return pattern_ == KnownPattern::gpt2 ? next_gpt2(text, start) : next_llama3(text, start);
}

std::size_t Scanner::next_gpt2(std::string_view text, std::size_t start) const {
  if (text[start] == '\'')
    if (const std::size_t length = contraction(text, start, false)) return start + length;
  const std::size_t body = start + (text[start] == ' ' ? 1 : 0);
  if (body < text.size()) {
    const Character first = at(text, body);
    if (first.kind != space) return run_of(first.kind, text, body + first.length);
  }
  return white_space(text, start, false);
}

std::size_t Scanner::next_llama3(std::string_view text, std::size_t start) const {
  if (text[start] == '\'')
    if (const std::size_t length = contraction(text, start, true)) return start + length;

  const Character first = at(text, start);
  const std::size_t second_at = start + first.length;
  if (first.kind == letter) return run_of(letter, text, second_at);
  if (first.kind == number) {
    std::size_t end = second_at;
    for (int digits = pattern_ == KnownPattern::llama3 ? 1 : 3; digits < 3; ++digits) {
      if (end == text.size()) break;
      const Character next_digit = at(text, end);
      if (next_digit.kind != number) break;
      end += next_digit.length;
    }
    return end;
  }
  if (second_at < text.size() && !is_newline(text[start])) {
    const Character second = at(text, second_at);
    if (second.kind == letter) return run_of(letter, text, second_at + second.length);
  }

  const std::size_t body = start + (text[start] == ' ' ? 1 : 0);
  if (body < text.size() && at(text, body).kind == other) {
    std::size_t end = run_of(other, text, body);
    while (end < text.size() && is_newline(text[end])) ++end;
    return end;
  }
  return white_space(text, start, true);
}

// \s*[\r\n]+ (only when newlines bind), then \s+(?!\S), then \s+: backtracking leaves the last
// white space before a word to that word, unless it is the only one.
std::size_t Scanner::white_space(std::string_view text, std::size_t start,
                                 bool newlines_bind) const {
  std::size_t end = start;
  std::size_t last_start = start;
  std::size_t after_newline = start;
  while (end < text.size()) {
    const Character character = at(text, end);
    if (character.kind != space) break;
    last_start = end;
    if (is_newline(text[end])) after_newline = end + 1;
    end += character.length;
  }
  if (newlines_bind && after_newline > start) return after_newline;
  return end == text.size() || last_start == start ? end : last_start;
}

}  // namespace lora::text
