// One key of rank_pattern / alpha_pattern: PEFT's re.match("(.*\.)?(key)$", module_path).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "adapter/python_regex.h"

namespace lora {

class NamePattern {
 public:
  /// Throws Error(usage) when the key is no valid expression.
  explicit NamePattern(std::string key,
                       std::shared_ptr<RegexSteps> steps = std::make_shared<RegexSteps>());

  bool matches(std::string_view module_path) const;

 private:
  std::string key_;
  std::shared_ptr<RegexSteps> steps_;
  // Most keys are plain names, and an adapter can have hundreds of them: those are compared from
  // the end without compiling an expression. '\0' stands for "any character".
  std::string plain_;
  std::optional<PythonRegex> regex_;
};

}  // namespace lora
