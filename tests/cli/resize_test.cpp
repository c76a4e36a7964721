// resize through the command line: words, JSON, exit codes, and verify on what it wrote.
#include "support/command_line.h"
#include "support/sample_adapter.h"

using namespace lora;
using namespace lora::testing;

namespace {

struct Folder : CommandFolder {
  Folder() {
    const Checkpoint base = sample_base(directory / "base");
    write_sample(directory / "a", sample_config(), sample_tensors(1), &base);
  }
  std::vector<std::string> resize(const std::vector<std::string>& more) const {
    return joined({"resize", path("a"), "-o", path("out")}, more);
  }
};

}  // namespace

TEST_CASE("resize says what each module keeps, and verify takes the result") {
  Folder folder;
  const CommandResult result = lora_ok(folder.resize({"--rank", "1"}));
  REQUIRE(contains(result.out, "energy kept"));
  REQUIRE(contains(result.out, "fc1"));
  REQUIRE(contains(result.out, "wrote " + folder.path("out") + ": 2 LoRA modules"));
  const CommandResult proof =
      lora_ok({"verify", folder.path("out"), "--base", folder.path("base")});
  REQUIRE(contains(proof.out, "proven"));
  REQUIRE(contains(lora_ok({"inspect", folder.path("out")}).out, "resize"));
}

TEST_CASE("resize --json lists ranks and energies; --dry-run writes nothing") {
  Folder folder;
  CommandResult planned = lora_ok(folder.resize({"--energy", "0.9", "--dry-run", "--json"}));
  REQUIRE(planned.result().find("written")->as_bool() == false);
  REQUIRE(!std::filesystem::exists(folder.path("out")));
  CommandResult done = lora_ok(folder.resize({"--energy", "0.9", "--json"}));
  REQUIRE(done.result().find("digest") != nullptr);
  REQUIRE(*done.result().find("digest") == *planned.result().find("digest"));
  const JsonArray& modules = *done.result().find("modules")->as_array();
  REQUIRE(modules.size() == 2);
  REQUIRE(modules[0].find("energy_kept")->as_double().value() >= 0.9);
  REQUIRE(modules[0].find("rank_before")->as_int() == 4);
}

TEST_CASE("resize refuses with the exit code of the reason") {
  Folder folder;
  const auto code = [&](const std::vector<std::string>& more) {
    return lora::testing::lora(folder.resize(more)).code;
  };
  REQUIRE(code({}) == 2);
  REQUIRE(code({"--rank", "2", "--energy", "0.5"}) == 2);
  REQUIRE(code({"--energy", "0"}) == 2);
  REQUIRE(code({"--energy", "1.01"}) == 2);
  REQUIRE(code({"--rank", "0"}) == 2);
  REQUIRE(code({"--rank", "11"}) == 2);
  REQUIRE(code({"--budget", "10"}) == 2);
  REQUIRE(code({"--rank-pattern", "fc1"}) == 2);
  REQUIRE(code({"--rank-pattern", "fc9=2"}) == 2);
  REQUIRE(code({"--rank", "2", "-o", folder.path("a"), "--force"}) == 2);
  REQUIRE(lora::testing::lora({"resize", folder.path("none"), "--rank", "2", "-o", "x"}).code == 3);
  lora_ok(folder.resize({"--rank", "10"}));
  REQUIRE(code({"--rank", "2"}) == 5);
  lora_ok(folder.resize({"--rank", "2", "--force"}));
  lora_ok(folder.resize({"--budget", "1000", "--force"}));
}
