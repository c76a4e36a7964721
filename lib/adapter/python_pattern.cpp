#include <cctype>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "adapter/python_regex.h"
#include "format/in_quotes.h"
#include "lora/base/error.h"

namespace lora {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_octal(char c) { return c >= '0' && c <= '7'; }
bool is_hex(char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    while (at_ < pattern_.size()) step();
    if (!open_.empty()) refuse("an unclosed group");
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(ErrorKind::usage, "cannot use the regular expression " + in_quotes(pattern_) +
                                      ": found " + what + " at character " + std::to_string(at_) +
                                      ", expected an expression Python's re understands");
  }

  bool next_is(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  char peek(std::size_t offset = 0) const {
    return at_ + offset < pattern_.size() ? pattern_[at_ + offset] : '\0';
  }
  void emit(std::string_view text) { out_ += text; }
  void copy(std::size_t count) {
    out_ += pattern_.substr(at_, count);
    at_ += count;
  }
  void emit_code_point(unsigned long value) {
    static constexpr std::string_view digits = "0123456789abcdef";
    std::string hex;
    do hex.insert(hex.begin(), digits[value & 15U]);
    while ((value >>= 4) != 0);
    out_ += "\\x{" + hex + "}";
  }

  void step() {
    const char c = peek();
    if (c == '*' || c == '+' || c == '?') {
      copy(1);
      finish_quantifier();
      return;
    }
    if (c == '{' && brace_quantifier()) return;
    after_quantifier_ = false;
    if (c == '\\') {
      escape(false);
    } else if (c == '[') {
      character_class();
    } else if (c == '(') {
      open_group();
    } else if (c == ')') {
      close_group();
    } else {
      // A brace that is no quantifier is a literal in Python; escaped, PCRE2 cannot disagree.
      if (c == '{') emit("\\");
      copy(1);
    }
  }

  void finish_quantifier() {
    if (after_quantifier_) refuse("a second quantifier");
    after_quantifier_ = true;
    if (peek() == '?' || peek() == '+') copy(1);
  }

  bool brace_quantifier() {
    std::size_t i = at_ + 1;
    const auto digits = [&] {
      const std::size_t begin = i;
      while (i < pattern_.size() && is_digit(pattern_[i])) ++i;
      return pattern_.substr(begin, i - begin);
    };
    if (peek(1) == '}') return false;
    const std::string_view low = digits();
    std::string_view high = low;
    const bool has_comma = i < pattern_.size() && pattern_[i] == ',';
    if (has_comma) {
      ++i;
      high = digits();
    }
    if (i >= pattern_.size() || pattern_[i] != '}') return false;
    // PCRE2 before 10.43 reads {,n} literally.
    emit("{");
    emit(low.empty() ? "0" : low);
    if (has_comma) {
      emit(",");
      emit(high);
    }
    emit("}");
    at_ = i + 1;
    finish_quantifier();
    return true;
  }

  unsigned long hex_digits(std::size_t count) {
    unsigned long value = 0;
    for (std::size_t i = 0; i < count; ++i) {
      if (!is_hex(peek(2 + i))) refuse("an incomplete escape");
      const char c = peek(2 + i);
      value = value * 16 + static_cast<unsigned long>(is_digit(c) ? c - '0' : (c | 32) - 'a' + 10);
    }
    at_ += 2 + count;
    return value;
  }

  void numeric_escape(bool in_class) {
    std::size_t octal = 0;
    while (octal < 3 && is_octal(peek(1 + octal))) ++octal;
    const bool is_code = peek(1) == '0' || octal == 3 || in_class;
    if (is_code) {
      if (octal == 0) refuse("an unknown escape");
      unsigned long value = 0;
      for (std::size_t i = 0; i < octal; ++i)
        value = value * 8 + static_cast<unsigned long>(peek(1 + i) - '0');
      if (value > 0377) refuse("an octal escape above \\377");
      at_ += 1 + octal;
      emit_code_point(value);
      return;
    }
    const std::size_t length = is_digit(peek(2)) ? 2 : 1;
    const int group = std::stoi(std::string(pattern_.substr(at_ + 1, length)));
    if (!closed_.contains(group)) refuse("a reference to a group that is not complete there");
    emit("\\g{" + std::to_string(group) + "}");
    at_ += 1 + length;
  }

  void escape(bool in_class) {
    const char c = peek(1);
    if (at_ + 1 >= pattern_.size()) refuse("a backslash at the end");
    if (is_digit(c)) return numeric_escape(in_class);
    switch (c) {
      case 'x':
        return emit_code_point(hex_digits(2));
      case 'u':
        return emit_code_point(hex_digits(4));
      case 'U':
        return emit_code_point(hex_digits(8));
      case 'v':
        // In PCRE2 \v is any vertical space.
        emit("\\x{b}");
        at_ += 2;
        return;
      case 'b':
        if (in_class) {
          emit("\\x{8}");
          at_ += 2;
          return;
        }
        return copy(2);
      case 'Z':
        if (in_class) refuse("an unknown escape");
        // In PCRE2 \Z also matches before a final newline.
        emit("\\z");
        at_ += 2;
        return;
      default:
        break;
    }
    static constexpr std::string_view everywhere = "afnrtdDsSwW";
    const bool is_known =
        everywhere.find(c) != std::string_view::npos || (!in_class && (c == 'A' || c == 'B'));
    if (is_letter(c) && !is_known) refuse("the unknown escape \\" + std::string(1, c));
    copy(2);
  }

  void character_class() {
    copy(1);
    if (peek() == '^') copy(1);
    if (peek() == ']') {
      emit("\\]");
      ++at_;
    }
    while (at_ < pattern_.size() && peek() != ']') {
      if (peek() == '\\') {
        escape(true);
      } else {
        // PCRE2 would read [: as the start of a POSIX class.
        if (peek() == '[') emit("\\");
        copy(1);
      }
    }
    if (at_ >= pattern_.size()) refuse("an unclosed character class");
    copy(1);
  }

  std::string_view name_until(char end, std::size_t offset) {
    const std::size_t stop = pattern_.find(end, at_ + offset);
    if (stop == std::string_view::npos) refuse("an unclosed group name");
    return pattern_.substr(at_ + offset, stop - at_ - offset);
  }

  void open_capture(std::size_t length) {
    open_.push_back(++groups_);
    copy(length);
  }

  void open_group() {
    if (next_is("(*")) refuse("a quantifier without anything to repeat");
    if (!next_is("(?")) return open_capture(1);
    if (next_is("(?P<")) {
      const std::string name(name_until('>', 4));
      if (!names_.emplace(name, groups_ + 1).second) refuse("a second group named " + name);
      return open_capture(5 + name.size());
    }
    if (next_is("(?P=")) {
      const std::string name(name_until(')', 4));
      const auto found = names_.find(name);
      if (found == names_.end() || !closed_.contains(found->second))
        refuse("a reference to the unknown group " + name);
      return copy(5 + name.size());
    }
    if (next_is("(?#")) {
      at_ += 4 + name_until(')', 3).size();
      return;
    }
    for (const std::string_view opening : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
      if (!next_is(opening)) continue;
      open_.push_back(0);
      return copy(opening.size());
    }
    if (next_is("(?(")) {
      open_.push_back(0);
      return copy(4 + name_until(')', 3).size());
    }
    flags();
  }

  // (?i), (?i:...), (?s-i:...): only the flags that mean the same in both engines.
  void flags() {
    std::size_t i = at_ + 2;
    std::string letters;
    while (i < pattern_.size() && (is_letter(pattern_[i]) || pattern_[i] == '-'))
      letters += pattern_[i++];
    const char end = i < pattern_.size() ? pattern_[i] : '\0';
    if (letters.empty() || (end != ')' && end != ':') ||
        letters.find_first_not_of("imsu-") != std::string::npos)
      refuse("an unsupported group");
    if (end == ')' && (at_ != 0 || letters.find('-') != std::string::npos))
      refuse("global flags that are not at the start");
    std::erase(letters, 'u');
    emit("(?" + letters + end);
    if (end == ':') open_.push_back(0);
    at_ = i + 1;
  }

  void close_group() {
    if (open_.empty()) refuse("an unbalanced parenthesis");
    if (open_.back() != 0) closed_.insert(open_.back());
    open_.pop_back();
    copy(1);
  }

  std::string_view pattern_;
  std::size_t at_ = 0;
  std::string out_;
  bool after_quantifier_ = false;
  int groups_ = 0;
  std::vector<int> open_;  ///< group numbers, 0 for those that capture nothing
  std::set<int> closed_;
  std::map<std::string, int> names_;
};

}  // namespace

std::string translate_python_pattern(std::string_view pattern) { return Translator(pattern).run(); }

}  // namespace lora
