// Regular expressions of tokenizer files: UTF-8, Unicode properties, just-in-time compiled.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace lora::text {

struct RegexMatch {
  std::size_t begin = 0;
  std::size_t end = 0;
};

/// May be used from several threads at once.
class Regex {
 public:
  /// `context` names the file in messages. Throws Error(unsupported) with the offset of what PCRE2
  /// does not accept.
  Regex(const std::string& expression, std::string_view context);

  /// Leftmost match at or after `from`; false when there is none. `text` is well-formed UTF-8.
  /// Throws Error(unsupported) that names the pattern and the file when the match takes more steps
  /// than a hundred thousand and 16 a byte of text from each place it is tried at, or more than
  /// 32 MiB.
  bool find(std::string_view text, std::size_t from, RegexMatch& match) const;

 private:
  std::shared_ptr<void> code_;
  std::string expression_;
  std::string context_;
};

/// `text` as an expression that matches exactly it.
std::string escape_for_regex(std::string_view text);

}  // namespace lora::text
