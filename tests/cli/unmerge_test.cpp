// unmerge through the command line: words, JSON, exit codes.
#include "support/command_line.h"
#include "support/sample_adapter.h"

using namespace lora;
using namespace lora::testing;

namespace {

// A base of 16 bits, an adapter on it, and a merge into f32, which loses nothing.
struct Folder : CommandFolder {
  Folder() {
    sample_base(directory / "wide");
    lora_ok({"init-base", "--from", path("wide"), "--dtype", "bf16", "-o", path("base")});
    const Checkpoint base = open_checkpoint(path("base"));
    write_sample(directory / "a", sample_config(), sample_tensors(), &base);
    lora_ok({"merge", path("a"), "--base", path("base"), "-o", path("sum"), "--dtype", "f32"});
  }
  std::vector<std::string> unmerge(const std::vector<std::string>& more = {}) const {
    return joined({"unmerge", path("sum"), "--adapter", path("a"), "-o", path("out")}, more);
  }
};

}  // namespace

TEST_CASE("unmerge calls exact what digests prove, and refuses the rest with a bound") {
  Folder folder;
  const CommandResult wide = lora::testing::lora(folder.unmerge());
  REQUIRE(wide.code == 4);
  REQUIRE(contains(wide.err, "restored tensors have another digest than lora_merge.json records"));
  REQUIRE(contains(wide.err, "--allow-inexact"));
  REQUIRE(!std::filesystem::exists(folder.path("out")));
  const CommandResult exact = lora_ok(folder.unmerge({"--dtype", "bf16"}));
  REQUIRE(contains(exact.out, "exact: the digests are those of the base that lora_merge.json"));
  REQUIRE(lora_ok({"diff", folder.path("base"), folder.path("out")}).code == 0);
  REQUIRE(lora::testing::lora(folder.unmerge({"--dtype", "bf16"})).code == 5);
  const CommandResult inexact = lora_ok(folder.unmerge({"--allow-inexact", "-f"}));
  REQUIRE(contains(inexact.err, "not proven to be the base"));
}

TEST_CASE("unmerge --json says what is proven; --dry-run writes nothing") {
  Folder folder;
  CommandResult planned = lora_ok(folder.unmerge({"--dry-run", "--json"}));
  for (const char* unknown : {"exact", "worst_ulps", "uncertain"})
    REQUIRE(planned.result().find(unknown)->is_null());
  for (const Json& file : *planned.result().find("files")->as_array())
    REQUIRE(*file.find("name")->as_string() != "lora_merge.json");
  REQUIRE(planned.result().find("tensors")->as_array()->size() == 2);
  REQUIRE(!std::filesystem::exists(folder.path("out")));
  CommandResult done = lora_ok(folder.unmerge({"--dtype", "bf16", "--json"}));
  REQUIRE(done.result().find("exact")->as_bool() == true);
  REQUIRE(*done.result().find("recorded_in")->as_string() == "lora_merge.json");
  REQUIRE(contains(lora_ok(folder.unmerge({"-n", "-f"})).out, "not checked by a dry run"));
  const CommandResult onto =
      lora::testing::lora({"unmerge", folder.path("sum"), "--adapter", folder.path("a"), "-o",
                           folder.path("sum"), "-f"});
  REQUIRE(onto.code == 2);
  REQUIRE(contains(onto.err, "cannot unmerge to " + folder.path("sum")));
  REQUIRE(lora::testing::lora({"unmerge", folder.path("nowhere"), "--adapter", folder.path("a"),
                               "-o", folder.path("x")})
              .code == 3);
  REQUIRE(lora::testing::lora({"unmerge", folder.path("sum"), "-o", folder.path("x")}).code == 2);
}
