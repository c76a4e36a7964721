// Long lists of offenders in one-line messages.
#pragma once

#include <string>
#include <vector>

namespace lora {

/// "a, b, c" for up to eight names, "a, ..., h and 223 more" beyond.
std::string list_names(const std::vector<std::string>& names);

}  // namespace lora
