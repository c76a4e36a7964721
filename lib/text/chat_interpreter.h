// Running a parsed chat template.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lora/text/chat_template.h"
#include "text/chat_parser.h"

namespace lora::text {

/// Throws Error(incompatible) for what the template itself refuses or cannot do with these values,
/// Error(unsupported) for a construct outside the subset, Error(resources) when it does not end or
/// takes more memory than its messages justify.
RenderedChat run_template(const std::vector<Statement>& program, Dict variables, const std::tm* now,
                          const std::string& context);

}  // namespace lora::text
