#include "engine/train_fixtures.h"
#include "golden_case.h"
//
#include "engine/probe.h"
#include "lora/adapter/manifest.h"
#include "lora/adapter/probe.h"
#include "lora/checkpoint/train_run.h"

using namespace lora;
using namespace lora::testing;

namespace {

// A tiny Llama with rows of token ids as data.
struct TokenRun {
  TempDir folder;
  GoldenCase golden{"llama_plain"};
  AdapterConfig config;

  TokenRun() {
    write_file(folder / "data.jsonl", R"({"input_ids": [5, 6, 7, 8, 9, 10]})"
                                      "\n"
                                      R"({"input_ids": [12, 13, 14, 15, 16, 17, 18]})"
                                      "\n");
    config.rank = 2;
    config.alpha = 4;
    config.target_modules = std::vector<std::string>{"q_proj", "down_proj"};
  }

  TrainOptions options(const std::string& run) const {
    TrainOptions result;
    result.base_source = golden.directory.string();
    result.base = &golden.base;
    result.data = {folder / "data.jsonl"};
    result.run_dir = folder / run;
    result.adapter_config = &config;
    result.base_dtype = BaseDtype::nf4;
    result.steps = 4;
    result.batch_size = 2;
    result.save_every = 2;
    result.lr = 0.01;
    return result;
  }
};

TrainReport train(const TrainOptions& options, const Sinks& sinks = {},
                  const std::function<void(const TrainEvent&)>& on_event = {}) {
  return engine::run_training(options, {engine::make_model}, on_event, sinks);
}

struct Warnings final : LogSink {
  void log(LogLevel level, std::string_view message) override {
    if (level == LogLevel::warning) text += message;
  }
  std::string text;
};

}  // namespace

TEST_CASE("a run records that its base was quantised, in the manifest and for --resume",
          "[quantised]") {
  const TokenRun run;
  const TrainReport report = train(run.options("run"));
  const auto manifest = read_manifest(report.adapter);
  REQUIRE(manifest);
  const Json* dtype = manifest->history.back().find("base_dtype");
  REQUIRE(dtype != nullptr);
  CHECK(*dtype == Json("nf4"));
  CHECK(*read_train_run(run.folder / "run").config.find("base_dtype") == Json("nf4"));

  TrainOptions native = run.options("native");
  native.base_dtype = BaseDtype::native;
  CHECK(train(native).first_loss != report.first_loss);
  CHECK(read_manifest(run.folder / "native" / "adapter")->history.back().find("base_dtype") ==
        nullptr);
}

TEST_CASE("a resumed run quantises its base again and gives the same bytes", "[quantised]") {
  const TokenRun run;
  train(run.options("straight"));
  CancelFlag cancel{false};
  Sinks sinks;
  sinks.cancel = &cancel;
  TrainOptions broken = run.options("broken");
  REQUIRE(train(broken, sinks, [&](const TrainEvent& event) {
            cancel = event.step >= 3;
          }).stopped_because == "interrupted");
  broken.resume = true;
  broken.base_dtype = BaseDtype::native;  // as when the flag is left out
  broken.adapter_config = nullptr;
  broken.steps.reset();
  train(broken);
  for (const char* name : {"adapter_model.safetensors", "lora_manifest.json", "probe.safetensors"})
    CHECK(read_file(run.folder / "straight" / "adapter" / name) ==
          read_file(run.folder / "broken" / "adapter" / name));

  broken.base_dtype = BaseDtype::int8;
  broken.given = {"base_dtype"};
  broken.steps = 6;
  CHECK_THROWS_WITH(train(broken), Catch::Contains("--base-dtype \"int8\" (the run has \"nf4\")"));
}

TEST_CASE("recorded outputs are those of the adapter on the native base", "[quantised]") {
  const TokenRun run;
  const TrainReport report = train(run.options("run"));
  const Probe recorded = read_probe(report.adapter / kProbeName);
  const Adapter adapter = open_adapter(report.adapter);
  ModelOptions options;
  options.base = &run.golden.base;
  options.adapters = {&adapter};
  const Probe again = engine::probe_model(*engine::make_model(options), options);
  CHECK(recorded.base.digest == again.base.digest);
  CHECK(recorded.adapted.digest == again.adapted.digest);
  options.base_dtype = BaseDtype::nf4;
  const Probe quantised = engine::probe_model(*engine::make_model(options), options);
  CHECK(recorded.base.digest != quantised.base.digest);
}

TEST_CASE("memory that is too small for the native base costs the record, not the adapter",
          "[quantised]") {
  const TokenRun run;
  const engine::TrainSurroundings surroundings{[](const ModelOptions& options) {
    if (options.base_dtype == BaseDtype::native) throw std::bad_alloc();
    return engine::make_model(options);
  }};
  Warnings warnings;
  Sinks sinks;
  sinks.log = &warnings;
  const TrainReport report = engine::run_training(run.options("run"), surroundings, {}, sinks);
  CHECK(std::filesystem::exists(report.adapter / "adapter_model.safetensors"));
  CHECK_FALSE(std::filesystem::exists(report.adapter / kProbeName));
  CHECK_THAT(warnings.text, Catch::Contains("no recorded outputs: out of memory"));
}
