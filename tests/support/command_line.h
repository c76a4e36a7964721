// Runs the whole command line in process, with a scrubbed environment.
#pragma once

#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "cli/run.h"
#include "lora/format/json.h"
#include "support/testing.h"

namespace lora::testing {

struct CommandResult {
  int code = 0;
  std::string out;
  std::string err;

  /// The one JSON document of a --json run.
  Json document() const { return parse_json(out, "standard output"); }
  const Json& result() {
    parsed_ = document();
    REQUIRE(parsed_.find("result") != nullptr);
    return *parsed_.find("result");
  }

 private:
  Json parsed_;
};

inline CommandResult lora(const std::vector<std::string>& arguments,
                          std::map<std::string, std::string> environment = {}) {
  std::ostringstream out, err;
  cli::Streams streams{out, err};
  environment.emplace("LORA_ENGINE", LORA_BINARY_DIR "/lib/lora/liblora_engine.so");
  environment.emplace("LORA_THREADS", "2");
  streams.environment = [&environment](const std::string& name) -> std::optional<std::string> {
    const auto found = environment.find(name);
    return found == environment.end() ? std::nullopt : std::optional(found->second);
  };
  CommandResult result;
  result.code = cli::run(arguments, streams);
  result.out = out.str();
  result.err = err.str();
  INFO("lora " << (arguments.empty() ? "" : arguments[0]) << " wrote to stderr: " << result.err);
  return result;
}

/// The same, and it must succeed.
inline CommandResult lora_ok(const std::vector<std::string>& arguments) {
  CommandResult result = lora(arguments);
  INFO(result.err << result.out);
  REQUIRE(result.code == 0);
  return result;
}

/// A temporary folder whose entries are named in command lines.
struct CommandFolder {
  TempDir directory;
  std::string path(std::string_view name) const { return (directory / name).string(); }
};

inline std::vector<std::string> joined(std::vector<std::string> arguments,
                                       const std::vector<std::string>& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

/// `lora verify` with these arguments.
inline CommandResult lora_verify(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "verify");
  return lora(arguments);
}

inline bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace lora::testing
