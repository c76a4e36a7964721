// `lora --version`, and with -v what this build can use on this machine.
#pragma once

#include <string>

#include "cli/streams.h"

namespace lora::cli {

std::string version_text(bool detailed, bool json, const Streams& streams);

}  // namespace lora::cli
