#include "lora/checkpoint/train_run.h"

#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

TrainRun sample() {
  TrainRun run;
  run.tool_version = "1.2.3";
  run.base_source = "models/base";
  run.base_root = sha256(std::span<const std::byte>{});
  run.data = {{"a.jsonl", sha256(std::span<const std::byte>{})}};
  run.total_steps = 40;
  run.threads = 2;
  run.config = {{"lr", 0.1}};
  run.adapter_config = JsonObject{{"r", 8}};
  return run;
}

void write_record(const std::filesystem::path& folder, const Json& document) {
  write_file(folder / "run.json", dump_json(document));
}

}  // namespace

TEST_CASE("run.json comes back as it was written") {
  const TempDir folder;
  TrainRun run = sample();
  write_record(folder.path(), to_json(run));
  REQUIRE(to_json(read_train_run(folder.path())) == to_json(run));
  run.initial_adapter = RecordedFile{"adapter", sha256(std::span<const std::byte>{})};
  write_record(folder.path(), to_json(run));
  const TrainRun read = read_train_run(folder.path());
  REQUIRE(read.initial_adapter->path == "adapter");
  REQUIRE(read.base_root == run.base_root);
  REQUIRE(is_run_directory(folder.path()));
}

TEST_CASE("a folder without run.json is no run") {
  const TempDir folder;
  REQUIRE_FALSE(is_run_directory(folder.path()));
  require_error(ErrorKind::not_found, "run.json", [&] { read_train_run(folder.path()); });
}

TEST_CASE("a damaged run.json is refused by member") {
  const TempDir folder;
  const auto refuses = [&](ErrorKind kind, const char* part, auto change) {
    Json document = to_json(sample());
    change(*document.as_object());
    write_record(folder.path(), document);
    require_error(kind, part, [&] { read_train_run(folder.path()); });
  };
  refuses(ErrorKind::malformed, "base is missing", [](JsonObject& o) { o.erase("base"); });
  refuses(ErrorKind::malformed, "base.root is string, expected 64 hexadecimal digits",
          [](JsonObject& o) {
            o["base"] = JsonObject{{"source", "x"}, {"root", "12"}};
          });
  refuses(ErrorKind::malformed, "data is string, expected an array",
          [](JsonObject& o) { o["data"] = "a.jsonl"; });
  refuses(ErrorKind::malformed, "total_steps is integer, expected a whole number",
          [](JsonObject& o) { o["total_steps"] = -1; });
  refuses(ErrorKind::malformed, "config is null, expected an object",
          [](JsonObject& o) { o["config"] = nullptr; });
  refuses(ErrorKind::unsupported, "schema is 'lora.run/9'",
          [](JsonObject& o) { o["schema"] = "lora.run/9"; });
}

TEST_CASE("the adapter of a run is its result, or its newest complete checkpoint") {
  const TempDir folder;
  require_error(ErrorKind::not_found, "neither an adapter nor a checkpoint",
                [&] { adapter_of_run(folder.path()); });
  for (const std::int64_t step : {20, 100})
    write_file(checkpoint_path(folder.path(), step) / "x", "");
  write_file(folder.path() / "checkpoints" / ".step-000200.lora-tmp-1-0" / "x", "");
  REQUIRE(checkpoint_steps(folder.path()) == std::vector<std::int64_t>{20, 100});
  REQUIRE(adapter_of_run(folder.path()) == folder.path() / "checkpoints" / "step-000100");
  write_file(folder.path() / "adapter" / "x", "");
  REQUIRE(adapter_of_run(folder.path()) == folder.path() / "adapter");
}
