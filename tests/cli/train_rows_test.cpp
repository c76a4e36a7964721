// Flags of `lora train` about rows and loss, through the command line in process.
#include "support/command_line.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

struct Run {
  TempDir directory;
  std::string path(std::string_view name) const { return (directory / name).string(); }

  Run() {
    std::string lines;
    for (int i = 0; i < 24; ++i) {
      lines += "{\"input_ids\": [1";
      for (int t = 0; t < i % 9; ++t) lines += ", " + std::to_string(2 + (i + t) % 30);
      lines += ", 2]}\n";
    }
    write_file(directory / "data.jsonl", lines);
    lora_ok({"init-base", "--preset", "tiny-llama", "-o", path("base")});
  }

  std::vector<std::string> arguments(const std::string& run,
                                     const std::vector<std::string>& more) const {
    std::vector<std::string> all{"train",     "--base",  path("base"), "--data", path("data.jsonl"),
                                 "--run-dir", path(run), "--seq-len",  "16",     "--batch-size",
                                 "2",         "--steps", "4"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

}  // namespace

TEST_CASE("lora train --pack says how full its rows are, and --resume goes on packed") {
  const Run run;
  CommandResult shown = lora_ok(run.arguments("shown", {"--pack"}));
  REQUIRE(contains(shown.out, "24 documents in "));
  REQUIRE(contains(shown.out, " rows of 16 tokens, "));
  CommandResult packed = lora_ok(run.arguments("packed", {"--pack", "--json"}));
  const Json packing = *packed.result().find("packing");
  REQUIRE(packing.find("documents")->as_int() == 24);
  REQUIRE(packing.find("row_tokens")->as_int() == 16);
  REQUIRE(packing.find("fill")->as_double().value() > 0.8);
  CommandResult plain = lora_ok(run.arguments("plain", {"--json"}));
  REQUIRE(plain.result().find("packing")->is_null());
  REQUIRE(plain.result().find("tokens")->as_int().value() <
          packed.result().find("tokens")->as_int().value());

  CommandResult more =
      lora_ok({"train", "--run-dir", run.path("packed"), "--resume", "--steps", "6", "--json"});
  REQUIRE(more.result().find("packing")->find("rows")->as_int() == packing.find("rows")->as_int());
  REQUIRE(contains(read_file(run.directory / "packed/run.json"), "\"pack\": true"));
}

TEST_CASE("flags of the loss reach it, and those that contradict each other are refused") {
  const Run run;
  const auto first_loss = [&](const std::string& name, const std::vector<std::string>& flags) {
    std::vector<std::string> all = flags;
    all.push_back("--json");
    return lora_ok(run.arguments(name, all)).result().find("first_loss")->as_double().value();
  };
  const double plain = first_loss("plain", {});
  REQUIRE(first_loss("smooth", {"--label-smoothing", "0.1"}) != plain);
  REQUIRE(first_loss("z", {"--z-loss", "0.01"}) > plain + 0.01);
  REQUIRE(first_loss("grouped", {"--group-by-length"}) > 0);
  CommandResult both = testing::lora(run.arguments("both", {"--pack", "--group-by-length"}));
  REQUIRE(both.code == 2);
  REQUIRE(contains(both.err, "packed rows are all about full"));
}
