// Everything the command line gets from the process: output streams, environment, cancellation.
// Tests pass their own and run whole commands in process.
#pragma once

#include <functional>
#include <optional>
#include <ostream>
#include <string>

#include "lora/base/sinks.h"

namespace lora::cli {

using Environment = std::function<std::optional<std::string>(const std::string& name)>;

struct Streams {
  std::ostream& out;
  std::ostream& err;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
  const CancelFlag* cancel = nullptr;
  Environment environment = [](const std::string&) { return std::nullopt; };
};

}  // namespace lora::cli
