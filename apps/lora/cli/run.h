// The whole program as one function, so that tests run it in process.
#pragma once

#include <string>
#include <vector>

#include "cli/exit_codes.h"
#include "cli/streams.h"

namespace lora::cli {

/// Runs `lora ARGUMENTS` and returns the exit code. Never throws.
int run(const std::vector<std::string>& arguments, const Streams& streams);

}  // namespace lora::cli
