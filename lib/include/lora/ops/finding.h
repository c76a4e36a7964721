// What verify, diff and inspect found: facts with a rule, a severity and advice.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lora {

enum class Severity { note, warning, error };

std::string_view to_string(Severity severity);

struct Finding {
  std::string rule;  ///< "LV305"
  Severity severity = Severity::note;
  std::string message;  ///< one line of facts: what was found, what was expected
  std::string file;     ///< each of these is empty when the finding is not about one
  std::string tensor;
  std::string module;
  std::string hint;                   ///< the command or step that fixes it
  std::vector<std::string> unlisted;  ///< names that the message counts and does not list
};

using Findings = std::vector<Finding>;

}  // namespace lora
