#include "text/chat_lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <utility>

#include "text/utf8.h"

namespace lora::text {
namespace {

using Kind = TemplateToken::Kind;

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

// Jinja reads \r\n and \r as \n and drops one newline at the end of a template.
std::string with_plain_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& context)
      : source_(with_plain_newlines(source)), context_(context) {}

  std::vector<TemplateToken> run() {
    while (at_ < source_.size()) {
      const std::size_t open = next_open();
      const std::size_t text_begin = at_;
      std::string text = source_.substr(text_begin, open - text_begin);
      if (open == source_.size()) {
        put_text(std::move(text));
        at_ = open;
        break;
      }
      const char what = source_[open + 1];
      const char sign = open + 2 < source_.size() ? source_[open + 2] : '\0';
      if (sign == '-') {
        while (!text.empty() && is_space(text.back())) text.pop_back();
      } else if (sign != '+' && what != '{') {
        strip_indentation(text);
      }
      put_text(std::move(text));
      count_lines(text_begin, open);
      at_ = open + 2 + (sign == '-' || sign == '+' ? 1 : 0);
      if (what == '#') {
        skip_comment();
      } else if (what == '%' && begins_raw()) {
        raw();
      } else {
        inside(what == '{');
      }
    }
    put(Kind::end, "");
    return std::move(tokens_);
  }

 private:
  std::size_t next_open() const {
    for (std::size_t i = at_; i + 1 < source_.size(); ++i)
      if (source_[i] == '{' &&
          (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#'))
        return i;
    return source_.size();
  }

  // lstrip_blocks: a block alone on its line so far takes its indentation with it.
  void strip_indentation(std::string& text) const {
    const std::size_t newline = text.rfind('\n');
    const std::size_t begin = newline == std::string::npos ? 0 : newline + 1;
    if (newline == std::string::npos && !line_starting_) return;
    if (std::all_of(text.begin() + static_cast<std::ptrdiff_t>(begin), text.end(), is_space))
      text.resize(begin);
  }

  void put(Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  void put_text(std::string text) {
    if (!text.empty()) put(Kind::text, std::move(text));
  }

  void count_lines(std::size_t begin, std::size_t end) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(begin),
                                         source_.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
  }

  // After a closing mark at `end`: '-' takes all white space, blocks and comments one newline.
  void close(std::size_t end, char sign, bool trims_newline) {
    at_ = end;
    if (sign == '-') {
      while (at_ < source_.size() && is_space(source_[at_])) ++at_;
    } else if (sign != '+' && trims_newline && at_ < source_.size() && source_[at_] == '\n') {
      ++at_;
    }
    count_lines(end, at_);
    line_starting_ = at_ > end && source_[at_ - 1] == '\n';
  }

  // The position behind `word` and a closing mark, whose sign `sign` gets; npos where they are not.
  std::size_t behind_tag(std::size_t at, std::string_view word, char& sign) const {
    const auto skip_space = [&] {
      while (at < source_.size() && is_space(source_[at])) ++at;
    };
    const std::string_view source = source_;
    skip_space();
    if (!source.substr(at).starts_with(word)) return std::string::npos;
    at += word.size();
    skip_space();
    sign = at < source_.size() ? source_[at] : '\0';
    if (sign == '-' || sign == '+') ++at;
    return source.substr(at).starts_with("%}") ? at + 2 : std::string::npos;
  }

  bool begins_raw() const {
    char sign = '\0';
    return behind_tag(at_, "raw", sign) != std::string::npos;
  }

  // What stands between {% raw %} and {% endraw %} is text; the first takes no newline with it.
  void raw() {
    char sign = '\0';
    const std::size_t begin = behind_tag(at_, "raw", sign);
    count_lines(at_, begin);
    close(begin, sign, false);
    const std::size_t text_begin = at_;
    for (std::size_t open = at_; (open = source_.find("{%", open)) != std::string::npos; ++open) {
      const char first = open + 2 < source_.size() ? source_[open + 2] : '\0';
      const std::size_t end =
          behind_tag(open + (first == '-' || first == '+' ? 3 : 2), "endraw", sign);
      if (end == std::string::npos) continue;
      std::string text = source_.substr(text_begin, open - text_begin);
      if (first == '-') {
        while (!text.empty() && is_space(text.back())) text.pop_back();
      } else if (first != '+') {
        strip_indentation(text);
      }
      put_text(std::move(text));
      count_lines(text_begin, end);
      close(end, sign, true);
      return;
    }
    fail("{% raw %} without {% endraw %}");
  }

  void skip_comment() {
    const std::size_t end = source_.find("#}", at_);
    if (end == std::string::npos) fail("a comment that does not end");
    const char sign = end > at_ ? source_[end - 1] : '\0';
    count_lines(at_, end);
    close(end + 2, sign, true);
  }

  void inside(bool is_print) {
    put(is_print ? Kind::print_begin : Kind::block_begin, "");
    int depth = 0;
    for (;;) {
      while (at_ < source_.size() && is_space(source_[at_])) {
        if (source_[at_] == '\n') ++line_;
        ++at_;
      }
      if (at_ == source_.size()) fail(is_print ? "{{ without }}" : "{% without %}");
      const char c = source_[at_];
      const std::string_view close_mark = is_print ? "}}" : "%}";
      const std::string_view rest = std::string_view(source_).substr(at_);
      if (depth == 0) {
        const bool signed_close = (c == '-' || c == '+') && rest.substr(1).starts_with(close_mark);
        if (signed_close || rest.starts_with(close_mark)) {
          put(is_print ? Kind::print_end : Kind::block_end, "");
          close(at_ + (signed_close ? 3 : 2), signed_close ? c : '\0', !is_print);
          return;
        }
      }
      if (c == '"' || c == '\'') {
        string(c);
      } else if (is_digit(c)) {
        number();
      } else if (is_name_start(c)) {
        const std::size_t begin = at_;
        while (at_ < source_.size() && (is_name_start(source_[at_]) || is_digit(source_[at_])))
          ++at_;
        put(Kind::name, source_.substr(begin, at_ - begin));
      } else {
        symbol(rest, depth);
      }
    }
  }

  void symbol(std::string_view rest, int& depth) {
    static constexpr std::array<std::string_view, 6> kDouble{"==", "!=", "<=", ">=", "//", "**"};
    for (const std::string_view pair : kDouble) {
      if (!rest.starts_with(pair)) continue;
      put(Kind::symbol, std::string(pair));
      at_ += 2;
      return;
    }
    const char c = rest.front();
    if (std::string_view("+-*/%~<>=|.,:()[]{}").find(c) == std::string_view::npos)
      fail(std::string("the character '") + c + "'");
    if (c == '(' || c == '[' || c == '{') ++depth;
    if (c == ')' || c == ']' || c == '}') --depth;
    if (depth < 0) fail(std::string("an unmatched '") + c + "'");
    put(Kind::symbol, std::string(1, c));
    ++at_;
  }

  void number() {
    const std::size_t begin = at_;
    const auto at = [&](std::size_t ahead) {
      return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0';
    };
    const auto skip_digits = [&](const char* letters) {
      const auto belongs = [&](char c) {
        return c != '\0' && (is_digit(c) || std::string_view(letters).find(c) != std::string::npos);
      };
      while (belongs(at(0)) || (at(0) == '_' && belongs(at(1)))) ++at_;
    };
    bool is_float = false;
    if (at(0) == '0' && (at(1) == 'x' || at(1) == 'o' || at(1) == 'b')) {
      at_ += 2;
      skip_digits("abcdefABCDEF");
    } else {
      skip_digits("");
      // `list.0.name`: no number with a fraction follows a point.
      const bool follows_point = begin > 0 && source_[begin - 1] == '.';
      if (!follows_point && at(0) == '.' && is_digit(at(1))) {
        is_float = true;
        ++at_;
        skip_digits("");
      }
      const std::size_t sign = at(1) == '-' || at(1) == '+' ? 1 : 0;
      if (!follows_point && (at(0) == 'e' || at(0) == 'E') && is_digit(at(1 + sign))) {
        is_float = true;
        at_ += 1 + sign;
        skip_digits("");
      }
    }
    std::string text = source_.substr(begin, at_ - begin);
    std::erase(text, '_');
    put(is_float ? Kind::number : Kind::integer, std::move(text));
  }

  void string(char quote) {
    std::string value;
    for (++at_;; ++at_) {
      if (at_ == source_.size()) fail("a string that does not end");
      const char c = source_[at_];
      if (c == quote) break;
      if (c == '\n') ++line_;
      if (c != '\\') {
        value += c;
        continue;
      }
      if (++at_ == source_.size()) fail("a string that does not end");
      escape(value);
    }
    ++at_;
    put(Kind::string, std::move(value));
  }

  // Python's escapes; one it does not know stays as written.
  void escape(std::string& value) {
    constexpr std::string_view kLetters = "\\'\"abfnrtv";
    constexpr std::string_view kMeanings = "\\'\"\a\b\f\n\r\t\v";
    const char c = source_[at_];
    if (const std::size_t i = kLetters.find(c); i != std::string_view::npos) {
      value += kMeanings[i];
      return;
    }
    if (c == '\n') {  // a string that goes on in the next line
      ++line_;
      return;
    }
    if (c >= '0' && c <= '7') {
      std::uint32_t octal = 0;
      std::size_t count = 0;
      for (; count < 3 && at_ + count < source_.size() && source_[at_ + count] >= '0' &&
             source_[at_ + count] <= '7';
           ++count)
        octal = 8 * octal + static_cast<std::uint32_t>(source_[at_ + count] - '0');
      append_utf8(value, octal);
      at_ += count - 1;
      return;
    }
    if (c == 'N')
      throw template_error(ErrorKind::unsupported, context_, line_,
                           "a character by its name (\\N) is not supported");
    const std::size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {
      (value += '\\') += c;
      return;
    }
    std::uint32_t code_point = 0;
    const char* begin = source_.data() + at_ + 1;
    if (at_ + digits >= source_.size()) fail("an escape that does not end");
    const auto [end, error] = std::from_chars(begin, begin + digits, code_point, 16);
    if (error != std::errc() || end != begin + digits || code_point > 0x10FFFF ||
        (code_point >= 0xD800 && code_point < 0xE000))
      fail("a bad escape in a string");
    append_utf8(value, code_point);
    at_ += digits;
  }

  [[noreturn]] void fail(const std::string& found) const {
    throw template_error(ErrorKind::malformed, context_, line_, "found " + found);
  }

  std::string source_;
  const std::string& context_;
  std::vector<TemplateToken> tokens_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
};

}  // namespace

std::vector<TemplateToken> lex_template(std::string_view source, const std::string& context) {
  return Lexer(source, context).run();
}

Error template_error(ErrorKind kind, const std::string& context, int line,
                     const std::string& what) {
  return Error(kind, "cannot use chat template " + context + ", line " + std::to_string(line) +
                         ": " + what)
      .in_file(context);
}

}  // namespace lora::text
