// `inspect --html`: what is in an adapter or a checkpoint, as a page.
#pragma once

#include <string>

#include "lora/ops/inspect.h"

namespace lora::cli {

std::string inspect_page(const InspectReport& report);

}  // namespace lora::cli
