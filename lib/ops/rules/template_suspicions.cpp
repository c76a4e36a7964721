#include "ops/rules/template_suspicions.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>
#include <utility>

#include "format/utf8.h"

namespace lora::rules {
namespace {

constexpr auto kStatements =
    std::to_array<std::string_view>({"import", "include", "extends", "from"});
constexpr auto kCalls = std::to_array<std::string_view>({"eval",
                                                         "exec",
                                                         "compile",
                                                         "open",
                                                         "getattr",
                                                         "setattr",
                                                         "delattr",
                                                         "globals",
                                                         "locals",
                                                         "vars",
                                                         "dir",
                                                         "breakpoint",
                                                         "popen",
                                                         "system",
                                                         "spawn",
                                                         "check_output",
                                                         "import_module",
                                                         "url_for",
                                                         "get_flashed_messages",
                                                         "lipsum"});
constexpr auto kModules = std::to_array<std::string_view>(
    {"os", "sys", "subprocess", "builtins", "importlib", "socket", "shutil"});

template <std::size_t N>
bool is_among(const std::array<std::string_view, N>& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

bool is_name_part(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

bool is_special_name(std::string_view word) {
  return word.size() > 4 && word.starts_with("__") && word.ends_with("__") &&
         std::any_of(word.begin(), word.end(), [](char c) { return c != '_'; });
}

class Examination {
 public:
  explicit Examination(std::string_view text) : text_(text) {}

  TemplateSuspicions run() {
    examine_code();
    examine_characters();
    find_addresses();
    return std::move(found_);
  }

 private:
  void suspect(const std::string& what, std::size_t at) {
    const auto line =
        1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at), '\n');
    const std::string phrase = what + " in line " + std::to_string(line);
    if (std::find(found_.dangerous.begin(), found_.dangerous.end(), phrase) ==
        found_.dangerous.end())
      found_.dangerous.push_back(phrase);
  }

  void examine_code() {
    for (std::size_t at = 0; at + 1 < text_.size();) {
      if (text_[at] != '{') {
        ++at;
      } else if (text_[at + 1] == '#') {
        const auto end = text_.find("#}", at + 2);
        at = end == std::string_view::npos ? text_.size() : end + 2;
      } else if (text_[at + 1] == '%' || text_[at + 1] == '{') {
        at = examine_block(at + 2, text_[at + 1] == '%');
      } else {
        ++at;
      }
    }
  }

  /// Returns the position behind the block's end.
  std::size_t examine_block(std::size_t at, bool is_statement) {
    const std::string_view end = is_statement ? "%}" : "}}";
    bool is_first_word = is_statement;
    while (at < text_.size()) {
      const char c = text_[at];
      if (text_.substr(at).starts_with(end)) return at + 2;
      if (c == '\'' || c == '"') {
        at = examine_string(at);
      } else if (is_name_part(c)) {
        at = examine_word(at, std::exchange(is_first_word, false));
      } else {
        ++at;
      }
    }
    return at;
  }

  std::size_t examine_word(std::size_t start, bool is_first) {
    std::size_t end = start;
    while (end < text_.size() && is_name_part(text_[end])) ++end;
    const std::string_view word = text_.substr(start, end - start);
    const char before = previous(start), after = next(end);
    const std::string quoted = "`" + std::string(word) + "`";
    if (is_special_name(word)) suspect(quoted, start);
    if (is_first && is_among(kStatements, word)) suspect("the statement " + quoted, start);
    if (after == '(' && is_among(kCalls, word)) suspect("a call of " + quoted, start);
    if (after == '(' && before == '|' && word == "attr") suspect("the filter `attr`", start);
    if (after == '.' && before != '.' && is_among(kModules, word))
      suspect("the module " + quoted, start);
    return end;
  }

  // A special name may be spelled as a string: x['__class__'], x|attr("\x5f...").
  std::size_t examine_string(std::size_t start) {
    const char quote = text_[start];
    std::size_t end = start + 1;
    while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
    end = std::min(end, text_.size());
    const std::string_view inside = text_.substr(start + 1, end - start - 1);
    if (is_special_name(inside)) suspect("`" + std::string(inside) + "`", start);
    for (const std::string_view escape : {"\\x5f", "\\x5F", "\\u005f", "\\u005F", "\\137"})
      if (inside.find(escape) != std::string_view::npos)
        suspect("an underscore written as " + std::string(escape), start);
    for (const std::string_view escape : {"\\u200b", "\\u200e", "\\u200f", "\\u202", "\\u206"})
      if (inside.find(escape) != std::string_view::npos)
        suspect("a hidden character written as an escape", start);
    return end + 1;
  }

  char previous(std::size_t at) const {
    while (at > 0 && std::isspace(static_cast<unsigned char>(text_[at - 1])) != 0) --at;
    return at == 0 ? '\0' : text_[at - 1];
  }
  char next(std::size_t at) const {
    while (at < text_.size() && std::isspace(static_cast<unsigned char>(text_[at])) != 0) ++at;
    return at < text_.size() ? text_[at] : '\0';
  }

  void examine_characters() {
    char32_t last = 0;
    for (std::size_t at = 0; at < text_.size();) {
      char32_t code = 0;
      const std::size_t length = decode_utf8(text_.substr(at), code);
      if (length != 0 && is_hidden(code, last, at)) {
        std::array<char, 48> name{};
        std::snprintf(name.data(), name.size(), "the hidden character U+%04X",
                      static_cast<unsigned>(code));
        suspect(name.data(), at);
      }
      last = length == 0 ? 0 : code;
      at += std::max<std::size_t>(length, 1);
    }
  }

  // Joiners are part of emoji and of Arabic and Indic scripts, tags of flags.
  static bool is_hidden(char32_t code, char32_t last, std::size_t at) {
    if (code == 0x200C || code == 0x200D) return last < 0x0590 || (last >= 0x0E00 && last < 0x2190);
    if (code == 0xFEFF) return at != 0;
    if (code >= 0xE0000 && code <= 0xE007F)
      return last != 0x1F3F4 && !(last >= 0xE0020 && last <= 0xE007F);
    return code == 0x200B || code == 0x200E || code == 0x200F ||
           (code >= 0x202A && code <= 0x202E) || (code >= 0x2060 && code <= 0x2064) ||
           (code >= 0x2066 && code <= 0x206F) || code == 0x061C || code == 0x180E;
  }

  void find_addresses() {
    for (const std::string_view scheme : {"http://", "https://", "ftp://"})
      for (auto at = text_.find(scheme); at != std::string_view::npos;
           at = text_.find(scheme, at + 1)) {
        const auto end = text_.find_first_of(" \t\r\n\"'<>{}|\\)", at);
        found_.addresses.emplace_back(
            text_.substr(at, end == std::string_view::npos ? end : end - at));
      }
    std::sort(found_.addresses.begin(), found_.addresses.end());
    found_.addresses.erase(std::unique(found_.addresses.begin(), found_.addresses.end()),
                           found_.addresses.end());
  }

  std::string_view text_;
  TemplateSuspicions found_;
};

}  // namespace

TemplateSuspicions examine_template(std::string_view text) { return Examination(text).run(); }

}  // namespace lora::rules
