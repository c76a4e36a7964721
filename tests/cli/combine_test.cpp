// combine through the command line: words, JSON, exit codes.
#include "lora/adapter/adapter.h"
#include "support/command_line.h"
#include "support/sample_adapter.h"

using namespace lora;
using namespace lora::testing;

namespace {

struct Folder : CommandFolder {
  Folder() {
    const Checkpoint base = sample_base(directory / "base");
    write_sample(directory / "a", sample_config(), sample_tensors(1), &base);
    write_sample(directory / "b", sample_config(), sample_tensors(2), &base);
  }
  std::vector<std::string> combine(const std::vector<std::string>& more) const {
    return joined({"combine", path("a") + "@0.7", path("b") + "@-0.5", "-o", path("out")}, more);
  }
};

}  // namespace

TEST_CASE("combine prints the interference before the result, and verify accepts it") {
  Folder folder;
  const CommandResult result = lora_ok(folder.combine({"--method", "cat"}));
  const std::size_t matrix = result.out.find("cosine");
  REQUIRE(contains(result.out, "[2] " + folder.path("b") + " times -0.5"));
  REQUIRE(matrix < result.out.find("wrote " + folder.path("out")));
  REQUIRE(contains(result.out, "cat of 2 adapters, 2 LoRA modules"));
  REQUIRE(contains(result.out, "exact but for the rounding"));
  lora_ok({"verify", folder.path("out"), "--base", folder.path("base"), "--strict"});
  const CommandResult shown = lora_ok({"inspect", folder.path("out")});
  REQUIRE(contains(shown.out, "combine"));
  lora_ok({"load", folder.path("out"), "--base", folder.path("base")});
}

TEST_CASE("combine --json has the cosines, the modules and the error of the rank") {
  Folder folder;
  CommandResult planned =
      lora_ok(folder.combine({"--method", "svd", "--rank", "2", "--dry-run", "--json"}));
  const Json& result = planned.result();
  REQUIRE(result.find("written")->as_bool() == false);
  REQUIRE(*result.find("method")->as_string() == "svd");
  REQUIRE(result.find("cosines")->as_array()->size() == 1);
  REQUIRE(result.find("cosines")->as_array()->front().find("second")->as_int() == 2);
  REQUIRE(result.find("modules")->as_array()->size() == 2);
  REQUIRE(result.find("modules")->as_array()->front().find("rank")->as_int() == 2);
  REQUIRE(result.find("error")->as_double().value() > 0);
  REQUIRE(result.find("adapters")->as_array()->at(1).find("weight")->as_double() == -0.5);
  REQUIRE(!std::filesystem::exists(folder.path("out")));
}

TEST_CASE("combine seeds its masks and reproduces PEFT on request") {
  Folder folder;
  const auto written = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = folder.combine(more);
    arguments.emplace_back("--force");
    lora_ok(arguments);
    return read_file(folder.directory / "out" / "adapter_model.safetensors");
  };
  const std::vector<std::string> dare{"--method", "dare_ties_svd", "--density", "0.5", "--seed"};
  const auto seeded = [&](const std::string& seed) {
    std::vector<std::string> arguments = dare;
    arguments.push_back(seed);
    return written(arguments);
  };
  const std::string first = seeded("1");
  REQUIRE(seeded("1") == first);
  REQUIRE(seeded("2") != first);
  const std::string ours = written({"--method", "svd", "--rank", "2"});
  REQUIRE(written({"--method", "svd", "--rank", "2", "--peft-compat", "0.20.0"}) != ours);
  REQUIRE(written({"--method", "svd", "--rank", "2", "--peft-compat", "0.21.2"}) == ours);
}

TEST_CASE("combine refuses with the exit code of the reason") {
  Folder folder;
  REQUIRE(lora::testing::lora(folder.combine({})).code == 2);
  REQUIRE(lora::testing::lora({"combine", "--method", "cat", "-o", folder.path("out")}).code == 2);
  const CommandResult density = lora::testing::lora(folder.combine({"--method", "ties"}));
  REQUIRE(density.code == 2);
  REQUIRE(contains(density.err, "needs --density"));
  REQUIRE(lora::testing::lora(
              {"combine", folder.path("none"), "--method", "cat", "-o", folder.path("out")})
              .code == 3);
  const Checkpoint other = sample_base(folder.directory / "other", 5);
  write_sample(folder.directory / "b", sample_config(), sample_tensors(2), &other);
  const CommandResult bases = lora::testing::lora(folder.combine({"--method", "cat"}));
  REQUIRE(bases.code == 4);
  REQUIRE(contains(bases.err, "--any-base"));
  lora_ok(folder.combine({"--method", "cat", "--any-base"}));
  REQUIRE(lora::testing::lora(folder.combine({"--method", "cat", "--any-base"})).code == 5);
  REQUIRE(
      lora::testing::lora({"combine", folder.path("a"), "--method", "cat", "-o", folder.path("a")})
          .code == 2);
}
