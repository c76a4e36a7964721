// Filters, tests and methods of the template language.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "text/chat_value.h"

namespace lora::text {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  /// Positional argument `index`, or the named one; null when neither is given.
  const Value* find(std::size_t index, std::string_view name) const;
};

/// What a template does wrong; the interpreter adds file and line.
struct TemplateFault {
  bool is_unsupported = false;
  std::string what;
};

/// Each throws TemplateFault for an unknown name or a value of the wrong type.
Value apply_filter(const std::string& name, const Value& value, const Arguments& arguments);
bool apply_test(const std::string& name, const Value& value, const std::vector<Value>& operands);
Value call_method(const Value& self, const std::string& name, const Arguments& arguments);
bool has_method(const Value& self, const std::string& name);

/// Items of something a loop can run over: a list, the characters of a string, the keys of a
/// dictionary; an undefined value has none.
List items_of(const Value& value);

}  // namespace lora::text
