// Operators of the template language, as Python has them.
#pragma once

#include <string>

#include "text/chat_budget.h"

namespace lora::text {

/// Each throws TemplateFault for values of the wrong type and what takes more than `budget`.
Value apply_unary(const std::string& op, const Value& value);
/// All but `and` and `or`, of which one side may not be evaluated.
Value apply_binary(const std::string& op, const Value& left, const Value& right,
                   RenderBudget& budget);

}  // namespace lora::text
