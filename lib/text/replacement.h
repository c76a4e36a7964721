// What a pattern matches, replaced by a fixed text: a normalizer and a decoder.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "text/component.h"
#include "text/regex.h"

namespace lora::text {

class Replacement {
 public:
  /// Of a component with "pattern" and "content"; `context` names the file.
  Replacement(const Component& part, const std::string& context);

  struct Result {
    std::string text;
    std::size_t start;  ///< how many of its first bytes were made of the first bytes of the text
  };
  /// `start` is the number of those first bytes. Throws Error(unsupported) when the text grows
  /// without measure.
  Result apply(std::string_view text, std::size_t start = 0) const;

 private:
  class Output;
  void replace_plain(Output& out) const;
  void replace_matches(Output& out) const;

  std::string plain_;  // looked for when there is no expression
  std::string content_;
  std::optional<Regex> regex_;
};

}  // namespace lora::text
