// The history of an adapter or of a merged checkpoint in words, one line a step.
#pragma once

#include <string>
#include <vector>

#include "lora/format/json.h"

namespace lora::cli {

/// "1. train  steps 100, loss 0.5" and "2. resize  rank 16; from adapter 12ab.., gives 34cd..";
/// histories of several inputs follow their step, indented.
std::vector<std::string> history_lines(const JsonArray& history, const std::string& indent = "");

}  // namespace lora::cli
