// Filters of the template language that look at many values.
#pragma once

#include <string_view>

#include "text/chat_functions.h"

namespace lora::text {

using ListFilter = Value (*)(const Value& value, const Arguments& arguments, RenderBudget& budget);

/// Null for a name that is none of them.
ListFilter find_list_filter(std::string_view name);

}  // namespace lora::text
