// merge through the command line: words, JSON, exit codes, and verify on what it wrote.
#include <fstream>

#include "lora/format/safetensors.h"
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
  std::vector<std::string> merge(const std::vector<std::string>& more = {}) const {
    return joined({"merge", path("a"), "--base", path("base"), "-o", path("out")}, more);
  }
};

}  // namespace

TEST_CASE("merge writes a checkpoint that verify proves and every verb takes as a base") {
  Folder folder;
  const CommandResult result = lora_ok(folder.merge());
  REQUIRE(contains(result.out, "fc1.weight"));
  REQUIRE(contains(result.out, "2 tensors changed, 2 as in the base"));
  const CommandResult proof = lora_ok(
      {"verify", folder.path("a"), "--base", folder.path("base"), "--merged", folder.path("out")});
  REQUIRE(contains(proof.out, "bit for bit (PEFT merge)"));
  lora_ok({"inspect", folder.path("out")});
  lora_ok({"load", folder.path("b"), "--base", folder.path("out"), "--any-base"});
  REQUIRE(lora::testing::lora({"load", folder.path("b"), "--base", folder.path("out")}).code == 4);
}

TEST_CASE("merge --json lists what changed; --dry-run writes nothing") {
  Folder folder;
  CommandResult planned = lora_ok(folder.merge({"--dry-run", "--json"}));
  REQUIRE(planned.result().find("tensors")->as_array()->size() == 2);
  REQUIRE(planned.result().find("written")->as_bool() == false);
  REQUIRE(planned.result().find("root")->is_null());
  REQUIRE(planned.result().find("estimated_seconds")->as_double().value() > 0);
  REQUIRE(!std::filesystem::exists(folder.path("out")));
  CommandResult done = lora_ok(folder.merge({"--json"}));
  REQUIRE(done.result().find("root")->as_string() != nullptr);
  REQUIRE(done.result().find("estimated_seconds")->is_null());
  REQUIRE(done.result().find("cosine")->as_double().value() > 0.999);
}

TEST_CASE("merge of several adapters says their order and weights") {
  Folder folder;
  const CommandResult result = lora_ok({"merge", folder.path("a") + "@0.7", folder.path("b"),
                                        "--base", folder.path("base"), "-o", folder.path("out")});
  REQUIRE(contains(result.err, "order of application: " + folder.path("a") + " times 0.7"));
  REQUIRE(contains(result.err, "then " + folder.path("b")));
}

TEST_CASE("verify proves a merge of several adapters by its record or by the weights given") {
  Folder folder;
  const std::string a = folder.path("a"), b = folder.path("b"), out = folder.path("out");
  const auto verify = [&](const std::string& first, const std::string& second) {
    return lora::testing::lora(
        {"verify", first, second, "--base", folder.path("base"), "--merged", out});
  };
  lora_ok({"merge", a + "@0.7", b, "--base", folder.path("base"), "-o", out});
  const CommandResult recorded = verify(b, a);
  INFO(recorded.out << recorded.err);
  REQUIRE(recorded.code == 0);
  REQUIRE(
      contains(recorded.err, "base + 0.7 * " + a + " + " + b + ", as its lora_merge.json says"));
  REQUIRE(contains(recorded.out, "bit for bit (PEFT merge)"));
  REQUIRE(verify(a + "@0.7", b).code == 0);
  REQUIRE(verify(a + "@0.6", b).code == 1);
  REQUIRE(lora::testing::lora({"verify", a, "--base", folder.path("base"), "--merged", out}).code ==
          1);
  // Without the record each adapter is held against the merge alone, and neither explains it.
  std::filesystem::remove(out + "/lora_merge.json");
  REQUIRE(verify(a, b).code == 1);
}

TEST_CASE("merge refuses with the exit code of the reason") {
  Folder folder;
  lora_ok(folder.merge());
  const CommandResult again = lora::testing::lora(folder.merge());
  REQUIRE(again.code == 5);
  REQUIRE(contains(again.err, "it exists and is up to date"));
  REQUIRE(contains(again.err, "--force"));
  const CommandResult safe = lora::testing::lora(folder.merge({"--compat", "safe_merge"}));
  REQUIRE(safe.code == 5);
  REQUIRE(contains(safe.err, "stale"));
  lora_ok(folder.merge({"--compat", "safe_merge", "--force"}));

  REQUIRE(lora::testing::lora({"merge", folder.path("a"), "--base", folder.path("base"), "-o",
                               folder.path("base"), "--force"})
              .code == 2);
  REQUIRE(lora::testing::lora({"merge", folder.path("nowhere"), "--base", folder.path("base"), "-o",
                               folder.path("x")})
              .code == 3);
  const Checkpoint other = sample_base(folder.directory / "other", 1);
  REQUIRE(lora::testing::lora(
              {"merge", folder.path("a"), "--base", folder.path("other"), "-o", folder.path("x")})
              .code == 4);
  lora_ok({"merge", folder.path("a"), "--base", folder.path("other"), "-o", folder.path("x"),
           "--any-base"});
}

TEST_CASE("merge warns of an update that rounding swallows") {
  Folder folder;
  lora_ok(
      {"init-base", "--from", folder.path("base"), "--dtype", "bf16", "-o", folder.path("narrow")});
  TensorMap tensors;
  for (const auto& [key, tensor] : sample_tensors())
    tensors[key] = normal_tensor(key, tensor.shape, 0.003);
  write_sample(folder.directory / "weak", sample_config(), tensors);
  CommandResult result = lora_ok(
      {"merge", folder.path("weak"), "--base", folder.path("narrow"), "-o", folder.path("out")});
  REQUIRE(contains(result.err, "rounding costs much of the update"));
  REQUIRE(contains(result.err, "--dtype f32"));
}

TEST_CASE("verify proves weighted merges of one adapter, and of one that is given twice") {
  Folder folder;
  const std::string a = folder.path("a");
  const auto merge = [&](const std::vector<std::string>& terms, const std::string& out) {
    lora_ok(joined(joined({"merge"}, terms), {"--base", folder.path("base"), "-o", out}));
  };
  const auto verify = [&](const std::vector<std::string>& terms, const std::string& out) {
    return lora::testing::lora(
        joined(joined({"verify"}, terms), {"--base", folder.path("base"), "--merged", out}));
  };
  const std::string half = folder.path("half"), whole = folder.path("whole"),
                    twice = folder.path("twice");
  merge({a + "@-0.5"}, half);
  merge({a}, whole);
  merge({a + "@0.5", a + "@0.25"}, twice);
  CHECK(verify({a + "@-0.5"}, half).code == 0);
  CHECK(verify({a}, half).code == 0);  // as the record says
  CHECK(verify({a + "@0.5"}, half).code == 1);
  CHECK(verify({a}, whole).code == 0);
  const CommandResult other = verify({a + "@0.5"}, whole);
  CHECK(other.code == 1);
  CHECK(contains(other.out + other.err, "LV709"));
  CHECK(verify({a + "@0.5", a + "@0.25"}, twice).code == 0);
  CHECK(verify({a}, twice).code == 0);
  CHECK(verify({a + "@0.5", a + "@0.5"}, twice).code == 1);
  std::filesystem::remove(half + "/lora_merge.json");
  CHECK(verify({a + "@-0.5"}, half).code == 0);
  CHECK(verify({a}, half).code == 1);
  // A damaged record is a finding, not the end of the run.
  std::ofstream(whole + "/lora_merge.json") << "{";
  const CommandResult damaged = verify({a}, whole);
  CHECK(damaged.code == 0);
  CHECK(contains(damaged.out + damaged.err, "LV709"));
}
