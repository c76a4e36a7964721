// What `lora verify` makes of its arguments: paths that nearly name an adapter, records and merged
// checkpoints that are none, rules in any case, and reports of more findings than anyone reads.
#include <algorithm>

#include "lora/adapter/probe.h"
#include "support/command_line.h"
#include "support/sample_adapter.h"

using namespace lora;
using namespace lora::testing;

namespace fs = std::filesystem;

namespace {

struct Good {
  TempDir directory;
  std::string path = (directory / "good").string();
  Checkpoint base = sample_base(directory / "base");
  std::string base_path = (directory / "base").string();

  Good() { write_sample(path, sample_config(), sample_tensors()); }
  std::string file(const std::string& name) const { return (directory / name).string(); }
};

std::string uri_of_first_result(const std::string& sarif) {
  const Json document = parse_json(sarif, "sarif");
  return *document.find("runs")
              ->as_array()
              ->at(0)
              .find("results")
              ->as_array()
              ->at(0)
              .find("locations")
              ->as_array()
              ->at(0)
              .find("physicalLocation")
              ->find("artifactLocation")
              ->find("uri")
              ->as_string();
}

}  // namespace

TEST_CASE("the weights file of an adapter stands for its folder") {
  const Good good;
  const CommandResult result = lora_verify({good.path + "/adapter_model.safetensors"});
  REQUIRE(result.code == 0);
  REQUIRE(contains(result.err, "using the adapter in " + good.path));
  REQUIRE(result.out == lora_verify({good.path}).out);
  // A copy of another name is not what PEFT would load.
  fs::copy(good.path + "/adapter_model.safetensors", good.path + "/copy.safetensors");
  const CommandResult copy = lora_verify({good.path + "/copy.safetensors"});
  REQUIRE(copy.code == 3);
  REQUIRE(contains(copy.out, "give its directory"));
}

TEST_CASE("a path that is not there is told what lies beside it, a cache which folder is meant") {
  const Good good;
  const CommandResult typo = lora_verify({good.file("god")});
  REQUIRE(typo.code == 3);
  REQUIRE(contains(typo.out, "adapters in " + good.directory.path().string() + ": good"));
  REQUIRE(contains(lora_verify({good.file("none/god")}).out,
                   "there is no folder " + good.file("none")));
  const fs::path commit = good.directory / "models--o--n/snapshots/0123";
  write_sample(commit, sample_config(), sample_tensors());
  const CommandResult cache = lora_verify({good.file("models--o--n")});
  REQUIRE(cache.code == 3);
  REQUIRE(contains(cache.out, "give its snapshot " + commit.string()));
}

TEST_CASE("a probe that is none and an adapter as merged checkpoint are errors of the request") {
  const Good good;
  write_file(good.file("probe"), "no probe");
  for (const std::string& probe : {good.file("probe"), good.file("nothing")}) {
    const CommandResult result =
        lora_verify({good.path, "--base", good.base_path, "--probe=" + probe});
    REQUIRE(result.code == 3);
    REQUIRE(result.out.empty());
    REQUIRE(contains(result.err, probe));
  }
  for (const std::string& merged : {good.path, good.path + "/adapter_model.safetensors"}) {
    const CommandResult result =
        lora_verify({good.path, "--base", good.base_path, "--merged", merged});
    REQUIRE(result.code == 3);
    REQUIRE(result.out.empty());
    REQUIRE(contains(result.err, "found an adapter, expected a whole model"));
  }
}

TEST_CASE("rules are chosen in any case") {
  const Good good;
  REQUIRE(contains(lora_verify({good.path, "--select", "lv217"}).out, "note LV217"));
  REQUIRE(!contains(lora_verify({good.path, "--ignore", "Scale-Unproven"}).out, "note LV217"));
  REQUIRE(contains(lora_verify({"--explain", "lv30"}).out, "LV302 key-missing"));
}

TEST_CASE("what is missing of an adapter is a file that annotations can point at") {
  const Good good;
  fs::remove(good.path + "/adapter_config.json");
  const CommandResult no_config = lora_verify({good.path, "--format", "github"});
  REQUIRE(no_config.code == 3);
  REQUIRE(
      contains(no_config.out, "::error file=" + good.path + "/adapter_config.json,title=LV101"));
  REQUIRE(uri_of_first_result(lora_verify({good.path, "--format", "sarif"}).out)
              .ends_with("/good/adapter_config.json"));
  const Good other;
  fs::remove(other.path + "/adapter_model.safetensors");
  REQUIRE(uri_of_first_result(lora_verify({other.path, "--format", "sarif"}).out)
              .ends_with("/good/adapter_model.safetensors"));
}

TEST_CASE("names with line breaks and control characters end no line of a report") {
  const Good good;
  TensorMap tensors = sample_tensors();
  tensors["a\n::error::b\x1b[31m"] = normal_tensor("x", {2});
  const std::string odd = good.file("odd\n::error::c");
  write_sample(odd, sample_config(), tensors);
  for (const char* format : {"text", "github", "junit", "sarif"}) {
    const CommandResult result = lora_verify({odd, "--format", format});
    INFO(result.out);
    REQUIRE(result.code == 1);
    REQUIRE(!contains(result.out, "\n::error::"));
    REQUIRE(!contains(result.out, "\x1b"));
  }
}

TEST_CASE("a rule that fires for every record is shown a hundred times and counted beyond") {
  const Good good;
  write_sample(good.path, sample_config(), sample_tensors(), &good.base);
  Json manifest = read_json_file(fs::path(good.path) / kManifestName);
  JsonObject& records = *(*manifest.as_object())["tensors"].as_object();
  const Json record = records.begin()->second;
  for (int i = 0; i < 250; ++i) records["gone" + std::to_string(i)] = record;
  write_file(fs::path(good.path) / kManifestName, dump_json(manifest));
  const CommandResult text = lora_verify({good.path});
  REQUIRE(text.code == 1);
  REQUIRE(contains(text.out, "  and 247 more of LV404"));
  REQUIRE(contains(text.out, "250 errors: LV404"));
  write_sample(good.file("other"), sample_config(), sample_tensors());
  const std::string table = lora_verify({good.path, good.file("other")}).out;
  REQUIRE(contains(table, "contradicted     250"));
  CommandResult json = lora_verify({good.path, "--json"});
  REQUIRE(json.code == 1);
  REQUIRE(json.result().find("summary")->find("errors")->as_int() == 250);
  const Json document = json.document();
  const JsonArray& findings = *document.find("findings")->as_array();
  REQUIRE(findings.size() == 101);
  REQUIRE(findings.back().find("more")->as_int() == 150);
  REQUIRE(*findings.back().find("message")->as_string() == "and 150 more");
  REQUIRE(findings.front().find("more") == nullptr);
  for (const char* format : {"junit", "sarif", "github"})
    REQUIRE(contains(lora_verify({good.path, "--format", format}).out, "and 150 more"));
  // What was only counted is accepted with the entry that counts it.
  const std::string baseline = good.file("known.json");
  lora_verify({good.path, "--write-baseline", baseline});
  REQUIRE(lora_verify({good.path, "--baseline", baseline}).code == 0);
}
