// Runs that were interrupted, and what makes them equal to others.
#pragma once

#include "engine/train_fixtures.h"
//
#include <sstream>

#include "lora/format/json.h"

namespace lora::testing {

/// metrics.jsonl without what may differ between equal runs.
inline std::vector<std::string> comparable_metrics(const std::filesystem::path& run) {
  std::vector<std::string> lines;
  std::istringstream in(read_file(run / "metrics.jsonl"));
  for (std::string line; std::getline(in, line);) {
    Json document = parse_json(line, "line");
    document.as_object()->erase("tok_s");
    document.as_object()->erase("rss_bytes");
    lines.push_back(dump_json(document, kCompactStyle));
  }
  return lines;
}

inline void require_equal_results(const std::filesystem::path& a, const std::filesystem::path& b) {
  for (const char* name : {"adapter_model.safetensors", "adapter_config.json", "lora_manifest.json",
                           "probe.safetensors"}) {
    INFO(name);
    REQUIRE(read_file(a / "adapter" / name) == read_file(b / "adapter" / name));
  }
  REQUIRE(comparable_metrics(a) == comparable_metrics(b));
}

/// Sets the cancel flag once `step` has been reported, as a signal handler would.
inline TrainReport interrupt_after(const TrainFixture& fixture, const TrainOptions& options,
                                   const engine::TrainSurroundings& surroundings,
                                   std::int64_t step) {
  CancelFlag cancel{false};
  Sinks sinks;
  sinks.cancel = &cancel;
  return fixture.train(options, surroundings, sinks,
                       [&](const TrainEvent& event) { cancel = event.step >= step; });
}

inline TrainOptions resuming(TrainOptions options) {
  options.resume = true;
  options.adapter_config = nullptr;
  options.steps.reset();
  return options;
}

}  // namespace lora::testing
