// `lora verify --explain`: what a rule looks at, means, and how to fix what it finds.
#pragma once

#include <string>
#include <vector>

#include "cli/console.h"
#include "cli/verb.h"

namespace lora::cli {

/// Throws Error(usage) with the closest id or name for a selector of `flag` that means no rule.
void require_rules(const std::vector<std::string>& selectors, const std::string& flag);

/// Ids, beginnings of ids, names, or "all".
Outcome explain_rules(const std::vector<std::string>& selectors, Console& console);

}  // namespace lora::cli
