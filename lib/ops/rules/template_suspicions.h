// What a chat template does that no chat format needs. A template is a Jinja program that runs
// wherever the tokenizer is used.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lora::rules {

struct TemplateSuspicions {
  /// Reaching into Python, loading other templates, characters that hide or reorder text: one
  /// phrase each, with the line ("`__class__` in line 3").
  std::vector<std::string> dangerous;
  std::vector<std::string> addresses;  ///< web addresses in the text
};

/// Looks at code between `{{ }}` and `{% %}` and at the characters of the whole text. Special names
/// of Python count in code and in its strings; calls count in code only.
TemplateSuspicions examine_template(std::string_view text);

}  // namespace lora::rules
