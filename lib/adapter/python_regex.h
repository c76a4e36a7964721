// Python's `re` on top of PCRE2, for the expressions PEFT takes from adapter configurations.
//
// The pattern is translated first: escapes that mean something else in PCRE2 are rewritten, and
// what Python does not have (or what cannot be honoured) is refused instead of matched differently.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace lora {

/// PCRE2 spelling of a Python pattern. Throws Error(usage) naming the pattern and the construct.
std::string translate_python_pattern(std::string_view pattern);

class PythonRegex {
 public:
  /// Throws Error(usage) for a pattern that Python, this translation or PCRE2 refuses.
  explicit PythonRegex(std::string_view pattern);

  bool full_match(std::string_view subject) const;  ///< re.fullmatch
  bool match(std::string_view subject) const;       ///< re.match: anchored at the start

  /// re.match and the text of a named group: outer nullopt without a match, inner nullopt when the
  /// group took no part in it.
  std::optional<std::optional<std::string>> match_group(std::string_view subject,
                                                        const char* name) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace lora
