#include "cli/context.h"

namespace lora::cli {

void GlobalOptions::add_to(OptionSet& options) {
  options.group("Global options");
  options.flag("--json", json, "print exactly one JSON document on stdout, on failure too");
  options.flag("-q,--quiet", quiet, "print results and errors only");
  OptionSpec& verbose =
      options.flag("-v,--verbose", no_progress, "say more; twice for debugging details");
  verbose.assign = [this](const std::vector<std::string>& values) {
    verbosity = static_cast<std::int64_t>(values.size());
  };
  options.choice("--color", color, {"auto", "always", "never"}, "when to use colour");
  options.flag("--no-progress", no_progress, "no progress line");
  options.integer("--threads", threads, 1, "threads to use (default: all processors)");
  options.text("--log-json", log_json, "FILE", "also write the log as JSON lines");
  options.text("--settings", settings, "FILE", "TOML file with values for flags not given");
}

int Context::threads() const {
  if (global.threads) return static_cast<int>(*global.threads);
  if (const auto value = streams.environment("LORA_THREADS"))
    return static_cast<int>(parse_integer("LORA_THREADS", *value, 1));
  return 0;
}

std::string Context::default_device() const {
  return streams.environment("LORA_DEVICE").value_or("cpu");
}

Engine& Context::engine() const {
  Engine& engine = load_engine(streams.environment("LORA_ENGINE").value_or(""));
  engine.set_threads(threads());
  return engine;
}

std::vector<std::filesystem::path> Context::huggingface_caches() const {
  std::vector<std::filesystem::path> roots;
  if (const auto hub = streams.environment("HF_HUB_CACHE")) roots.emplace_back(*hub);
  if (const auto home = streams.environment("HF_HOME"))
    roots.push_back(std::filesystem::path(*home) / "hub");
  if (const auto cache = streams.environment("XDG_CACHE_HOME"))
    roots.push_back(std::filesystem::path(*cache) / "huggingface" / "hub");
  if (const auto home = streams.environment("HOME"))
    roots.push_back(std::filesystem::path(*home) / ".cache" / "huggingface" / "hub");
  return roots;
}

}  // namespace lora::cli
