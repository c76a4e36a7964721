#include "text/json_cursor.h"

#include <charconv>
#include <optional>

#include "text/component.h"
#include "text/score.h"
#include "text/utf8.h"

namespace lora::text {

char JsonCursor::peek() {
  while (at_ < text_.size() &&
         (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
    ++at_;
  if (at_ == text_.size()) fail("the end of the file");
  return text_[at_];
}

bool JsonCursor::take_if(char c) {
  if (peek() != c) return false;
  ++at_;
  return true;
}

void JsonCursor::take(char c) {
  if (!take_if(c)) fail(std::string("'") + text_[at_] + "', expected '" + c + "'");
}

std::string JsonCursor::string() {
  std::string out;
  append_string(out);
  return out;
}

void JsonCursor::append_string(std::string& out) {
  take('"');
  for (;;) {
    std::size_t end = at_;
    while (end < text_.size() && text_[end] != '"' && text_[end] != '\\' &&
           static_cast<unsigned char>(text_[end]) >= 0x20)
      ++end;
    out.append(text_, at_, end - at_);
    at_ = end;
    if (at_ == text_.size()) fail("the end of the file inside a string");
    if (text_[at_] == '"') break;
    if (text_[at_] != '\\') fail("a control character inside a string");
    ++at_;
    escape(out);
  }
  ++at_;
}

std::int64_t JsonCursor::integer() {
  peek();
  std::int64_t value = 0;
  const char* begin = text_.data() + at_;
  const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
  if (error != std::errc()) fail("something else, expected an integer");
  at_ += static_cast<std::size_t>(end - begin);
  return value;
}

double JsonCursor::score() {
  peek();
  const auto score = read_score(text_.substr(at_));
  if (!score) fail("something else, expected a number");
  at_ += score->size;
  return score->value;
}

void JsonCursor::skip_value() {
  int depth = 0;
  do {
    const char c = peek();
    if (c == '"') {
      skip_string();
    } else if (c == '{' || c == '[') {
      ++depth;
      ++at_;
    } else if (c == '}' || c == ']') {
      if (depth == 0) fail("an unexpected bracket");
      --depth;
      ++at_;
    } else if (depth > 0 && (c == ',' || c == ':')) {
      ++at_;
    } else {
      const std::size_t begin = at_;
      while (at_ < text_.size() &&
             std::string_view(",:{}[]\" \n\r\t").find(text_[at_]) == std::string_view::npos)
        ++at_;
      if (at_ == begin) fail("an unexpected character");
    }
  } while (depth > 0);
}

void JsonCursor::fail(const std::string& found) const {
  throw malformed_tokenizer("found " + found + " at byte " + std::to_string(at_), context_);
}

void JsonCursor::skip_string() {
  ++at_;
  while (at_ < text_.size() && text_[at_] != '"') at_ += text_[at_] == '\\' ? 2 : 1;
  if (at_ >= text_.size()) {
    at_ = text_.size();
    fail("the end of the file inside a string");
  }
  ++at_;
}

std::uint32_t JsonCursor::hexadecimal() {
  std::uint32_t value = 0;
  if (at_ + 4 > text_.size()) fail("the end of the file inside a string");
  const char* begin = text_.data() + at_;
  const auto [end, error] = std::from_chars(begin, begin + 4, value, 16);
  if (error != std::errc() || end != begin + 4) fail("a bad \\u escape");
  at_ += 4;
  return value;
}

void JsonCursor::escape(std::string& out) {
  if (at_ == text_.size()) fail("the end of the file inside a string");
  const char c = text_[at_++];
  constexpr std::string_view kLetters = "\"\\/bfnrt";
  constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
  if (const std::size_t i = kLetters.find(c); i != std::string_view::npos) {
    out += kMeanings[i];
    return;
  }
  if (c != 'u') fail("an unknown escape inside a string");
  std::uint32_t code_point = hexadecimal();
  if (code_point >= 0xD800 && code_point < 0xDC00) {
    if (text_.substr(at_, 2) != "\\u") fail("half a surrogate pair");
    at_ += 2;
    const std::uint32_t low = hexadecimal();
    if (low < 0xDC00 || low > 0xDFFF) fail("half a surrogate pair");
    code_point = 0x10000 + ((code_point - 0xD800) << 10) + (low - 0xDC00);
  } else if (code_point >= 0xDC00 && code_point < 0xE000) {
    fail("half a surrogate pair");
  }
  append_utf8(out, code_point);
}

}  // namespace lora::text
