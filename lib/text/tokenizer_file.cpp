#include "text/tokenizer_file.h"

#include <charconv>
#include <optional>

#include "lora/base/mapped_file.h"
#include "text/component.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

// A cursor over JSON text that copies only what it is asked for. What it skips is parsed strictly
// afterwards, as part of the rest; what it copies, it checks itself.
class Cursor {
 public:
  Cursor(std::string_view text, const std::string& context) : text_(text), context_(context) {}

  std::size_t position() const { return at_; }

  char peek() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
      ++at_;
    if (at_ == text_.size()) fail("the end of the file");
    return text_[at_];
  }

  bool take_if(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }

  void take(char c) {
    if (!take_if(c)) fail(std::string("'") + text_[at_] + "', expected '" + c + "'");
  }

  std::string string() {
    std::string out;
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
    return out;
  }

  std::int64_t integer() {
    peek();
    std::int64_t value = 0;
    const char* begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error != std::errc()) fail("something else, expected an integer");
    at_ += static_cast<std::size_t>(end - begin);
    return value;
  }

  void skip_value() {
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

  [[noreturn]] void fail(const std::string& found) const {
    throw malformed_tokenizer("found " + found + " at byte " + std::to_string(at_), context_);
  }

 private:
  void skip_string() {
    ++at_;
    while (at_ < text_.size() && text_[at_] != '"') at_ += text_[at_] == '\\' ? 2 : 1;
    if (at_ >= text_.size()) {
      at_ = text_.size();
      fail("the end of the file inside a string");
    }
    ++at_;
  }

  std::uint32_t hexadecimal() {
    std::uint32_t value = 0;
    if (at_ + 4 > text_.size()) fail("the end of the file inside a string");
    const char* begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, begin + 4, value, 16);
    if (error != std::errc() || end != begin + 4) fail("a bad \\u escape");
    at_ += 4;
    return value;
  }

  void escape(std::string& out) {
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

  std::string_view text_;
  const std::string& context_;
  std::size_t at_ = 0;
};

template <typename Member>
void each_member(Cursor& cursor, Member&& member) {
  cursor.take('{');
  if (cursor.take_if('}')) return;
  do {
    const std::string key = cursor.string();
    cursor.take(':');
    member(key);
  } while (cursor.take_if(','));
  cursor.take('}');
}

template <typename Item>
void each_item(Cursor& cursor, Item&& item) {
  cursor.take('[');
  if (cursor.take_if(']')) return;
  do item();
  while (cursor.take_if(','));
  cursor.take(']');
}

void read_vocab(Cursor& cursor, TokenizerFile& file, const std::string& context) {
  if (cursor.peek() != '{')
    throw unsupported_component("model", "with a vocabulary that is not a map", context);
  each_member(cursor,
              [&](const std::string& key) { file.vocab.emplace_back(key, cursor.integer()); });
}

void read_merges(Cursor& cursor, TokenizerFile& file, const std::string& context) {
  each_item(cursor, [&] {
    if (cursor.peek() == '[') {
      cursor.take('[');
      std::string left = cursor.string();
      cursor.take(',');
      file.merges.emplace_back(std::move(left), cursor.string());
      cursor.take(']');
      return;
    }
    const std::string both = cursor.string();
    const std::size_t space = both.find(' ');
    if (space == std::string::npos || both.find(' ', space + 1) != std::string::npos)
      throw malformed_tokenizer("merge " + std::to_string(file.merges.size()) + " is \"" + both +
                                    "\", expected two tokens with one space between them",
                                context);
    file.merges.emplace_back(both.substr(0, space), both.substr(space + 1));
  });
}

}  // namespace

TokenizerFile parse_tokenizer(std::string_view text, const std::string& context) {
  if (const std::size_t invalid = find_invalid_utf8(text); invalid != std::string_view::npos)
    throw malformed_tokenizer("byte " + std::to_string(invalid) + " is not UTF-8", context);
  TokenizerFile file;
  std::string rest;
  std::size_t copied = 0;
  Cursor cursor(text, context);
  const auto replace_by_null = [&](std::size_t begin) {
    rest.append(text, copied, begin - copied).append("null");
    copied = cursor.position();
  };
  each_member(cursor, [&](const std::string& key) {
    if (key != "model" || cursor.peek() != '{') {
      cursor.skip_value();
      return;
    }
    each_member(cursor, [&](const std::string& field) {
      cursor.peek();
      const std::size_t begin = cursor.position();
      if (field == "vocab") {
        read_vocab(cursor, file, context);
        replace_by_null(begin);
      } else if (field == "merges" && cursor.peek() == '[') {
        read_merges(cursor, file, context);
        replace_by_null(begin);
      } else {
        cursor.skip_value();
      }
    });
  });
  rest.append(text, copied);
  file.rest = parse_json(rest, context);
  return file;
}

TokenizerFile read_tokenizer_file(const std::filesystem::path& path) {
  const auto mapped = MappedFile::open(path);
  const auto bytes = mapped->bytes();
  return parse_tokenizer({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                         path.string());
}

}  // namespace lora::text
