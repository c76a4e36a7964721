// Filters, tests and methods of the template language.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/chat_budget.h"
#include "text/chat_value.h"

namespace lora::text {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  /// Positional argument `index`, or the named one; null when neither is given.
  const Value* find(std::size_t index, std::string_view name) const;
};

/// Each throws TemplateFault for an unknown name, a value of the wrong type, and what takes more
/// than `budget`, which makes their results.
Value apply_filter(const std::string& name, const Value& value, const Arguments& arguments,
                   RenderBudget& budget);
bool apply_test(const std::string& name, const Value& value, const std::vector<Value>& operands,
                RenderBudget& budget);
Value call_method(const Value& self, const std::string& name, const Arguments& arguments,
                  RenderBudget& budget);
bool has_method(const Value& self, const std::string& name);

bool has_filter(std::string_view name);
bool has_test(std::string_view name);

/// A list of what a loop can run over: a list itself, the characters of a string, the keys of a
/// dictionary; an undefined value has none. A generator is empty afterwards.
Value listed(const Value& value, RenderBudget& budget);

/// The members of a dictionary as tuples.
Value pairs_of(const Dict& dict, RenderBudget& budget);

/// What an argument is; `user` names who got it in the TemplateFault that other types are. The
/// second is null, and the third `fallback`, for an argument that is left out or none.
const std::string& string_of(const Value& value, const std::string& user);
const std::string* string_or_none(const Value* value, const std::string& user);
std::int64_t integer_of(const Value* value, std::int64_t fallback);

}  // namespace lora::text
