// extract through the command line: words, JSON, exit codes.
#include "support/command_line.h"
#include "support/sample_adapter.h"

using namespace lora;
using namespace lora::testing;

namespace {

// A base, an adapter of rank 4 on it, and their merge as the tuned checkpoint.
struct Folder : CommandFolder {
  Folder() {
    const Checkpoint base = sample_base(directory / "base");
    write_sample(directory / "a", sample_config(), sample_tensors(), &base);
    lora_ok({"merge", path("a"), "--base", path("base"), "-o", path("tuned")});
  }
  std::vector<std::string> extract(const std::vector<std::string>& more) const {
    return joined({"extract", "--base", path("base"), "--tuned", path("tuned"), "-o", path("out")},
                  more);
  }
};

}  // namespace

TEST_CASE("extract says the error of every module and what is possible") {
  Folder folder;
  const CommandResult short_of = lora_ok(folder.extract({"--rank", "2"}));
  REQUIRE(contains(short_of.out, "fc1     2 of 10"));
  REQUIRE(contains(short_of.out, "error "));
  REQUIRE(contains(short_of.out, "best possible at these ranks"));
  const CommandResult whole = lora_ok(folder.extract({"--rank", "4", "--force"}));
  REQUIRE(contains(whole.out, "nothing is lost"));
  REQUIRE(contains(whole.err, "1 modules have a full rank below 4"));
  const CommandResult verdict = lora_verify({folder.path("out"), "--base", folder.path("base")});
  REQUIRE(verdict.code == 0);
  REQUIRE(contains(verdict.out, "verdict: proven"));
  const CommandResult merged = lora_ok(
      {"merge", folder.path("out"), "--base", folder.path("base"), "-o", folder.path("again")});
  REQUIRE(contains(lora_ok({"inspect", folder.path("out")}).out, "extract"));
}

TEST_CASE("extract --json has the figures; --dry-run writes nothing") {
  Folder folder;
  CommandResult planned = lora_ok(folder.extract({"-r", "2", "--dry-run", "--json"}));
  const Json& result = planned.result();
  REQUIRE(result.find("written")->as_bool() == false);
  REQUIRE(!std::filesystem::exists(folder.path("out")));
  const JsonArray& modules = *result.find("modules")->as_array();
  REQUIRE(modules.size() == 2);
  REQUIRE(*modules[0].find("module")->as_string() == "fc1");
  REQUIRE(modules[0].find("rank")->as_int() == 2);
  REQUIRE(modules[0].find("error")->as_double().value() >=
          modules[0].find("best_possible")->as_double().value());
  REQUIRE(modules[0].find("exact_svd")->as_bool() == true);
  REQUIRE(result.find("unchanged")->as_int() == 2);
}

TEST_CASE("extract refuses with the exit code of the reason") {
  Folder folder;
  const auto code = [&](const std::vector<std::string>& more) {
    return lora::testing::lora(folder.extract(more)).code;
  };
  REQUIRE(code({}) == 2);
  REQUIRE(code({"--rank", "2", "--energy", "0.5"}) == 2);
  REQUIRE(code({"--energy", "0"}) == 2);
  REQUIRE(code({"--energy", "1.01"}) == 2);
  REQUIRE(code({"--budget", "10"}) == 2);
  lora_ok(folder.extract({"--budget", "400"}));
  REQUIRE(code({"--rank", "2"}) == 5);
  REQUIRE(code({"--rank", "2", "--tuned", folder.path("nowhere"), "-f"}) == 3);
  REQUIRE(code({"--rank", "2", "--tuned", folder.path("base"), "-f"}) == 4);
  const CommandResult excluded =
      lora_ok(folder.extract({"--rank", "2", "-f", "--exclude-modules", "fc2"}));
  REQUIRE(contains(excluded.err, "1 changed tensor of excluded modules left out"));
}
