// What a running verb gets: global options, console, sinks, engine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cli/console.h"
#include "cli/option_set.h"
#include "cli/streams.h"
#include "lora/base/sinks.h"
#include "lora/engine.h"

namespace lora::cli {

struct GlobalOptions {
  bool json = false;
  bool quiet = false;
  std::int64_t verbosity = 0;
  std::string color = "auto";
  bool no_progress = false;
  std::optional<std::int64_t> threads;
  std::optional<std::string> log_json;
  std::optional<std::string> settings;

  /// Adds the flags every verb takes.
  void add_to(OptionSet& options);
};

struct Context {
  const Streams& streams;
  const GlobalOptions& global;
  Console& console;
  Sinks sinks;
  std::vector<std::string> given;  ///< keys of the flags that were given (OptionSpec::key)

  /// --threads, else LORA_THREADS, else 0 (all processors this process may use).
  int threads() const;
  /// LORA_DEVICE, else "cpu".
  std::string default_device() const;
  /// Opens the engine (LORA_ENGINE names it, else beside the executable) and sets its threads.
  Engine& engine() const;
  /// Folders that may hold a local Hugging Face cache, most specific first.
  std::vector<std::filesystem::path> huggingface_caches() const;
};

}  // namespace lora::cli
