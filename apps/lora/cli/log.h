// The log: info and debug lines on stderr as --verbose asks, and as JSON lines in --log-json FILE.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "cli/console.h"
#include "lora/base/sinks.h"

namespace lora::cli {

/// `level` is what LORA_LOG or --verbose asks for: warning by default.
std::unique_ptr<LogSink> make_log(Console& console, LogLevel level,
                                  const std::optional<std::string>& json_file);

}  // namespace lora::cli
