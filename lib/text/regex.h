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

 private:
  friend class RegexSearch;
  std::shared_ptr<void> code_;
  std::string expression_;
  std::string context_;
};

/// Walks through the matches in one text, on one thread. Regex and text must outlive it.
class RegexSearch {
 public:
  /// `text` is well-formed UTF-8.
  RegexSearch(const Regex& regex, std::string_view text);

  /// Leftmost match at or after `from`; false when there is none. Throws Error(unsupported) that
  /// names the pattern and the file when all calls together have taken more than a million steps
  /// and 200 for each byte of text, or one more than 32 MiB. A step is a part of the pattern tried
  /// at a place, or 16 bytes that such a part goes over.
  bool find(std::size_t from, RegexMatch& match);

 private:
  struct State;
  const Regex& regex_;
  std::string_view text_;
  std::shared_ptr<State> state_;
};

/// `text` as an expression that matches exactly it.
std::string escape_for_regex(std::string_view text);

}  // namespace lora::text
