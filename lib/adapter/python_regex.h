// Python's `re` on top of PCRE2, for the expressions PEFT takes from adapter configurations.
//
// The pattern is translated first: escapes that mean something else in PCRE2 are rewritten, and
// what Python does not have (or what cannot be honoured) is refused instead of matched differently.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace lora {

/// PCRE2 spelling of a Python pattern. Throws Error(usage) naming the pattern and the construct.
std::string translate_python_pattern(std::string_view pattern);

/// What all expressions of a configuration may take together for all names of a model. A match has
/// a limit of its own, but there are as many matches as expressions times names.
class RegexSteps {
 public:
  /// Some seconds. Twenty thousand names and a hundred expressions take half of it.
  static constexpr std::int64_t kMost = 100'000'000;

  explicit RegexSteps(std::int64_t most = kMost) : left_(most) {}
  /// False when none is left.
  bool take() { return left_.fetch_sub(1, std::memory_order_relaxed) > 0; }

 private:
  std::atomic<std::int64_t> left_;
};

class PythonRegex {
 public:
  /// Throws Error(usage) for a pattern that Python, this translation or PCRE2 refuses. Expressions
  /// share `steps`; without it this one has all of them for itself.
  explicit PythonRegex(std::string_view pattern,
                       std::shared_ptr<RegexSteps> steps = std::make_shared<RegexSteps>());

  /// Each throws Error(usage) for a name of more than 4096 bytes, and for a match or a sum of
  /// matches that takes too much.
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
