// `lora verify` as a person and a CI job meet it: filters, baselines, formats, several adapters.
#include <algorithm>

#include "lora/checkpoint/tokenizer_files.h"
#include "support/command_line.h"
#include "support/sample_adapter.h"

using namespace lora;
using namespace lora::testing;

namespace fs = std::filesystem;

namespace {

/// "good" is recorded and whole, "edited" has another alpha than its record, "missing" is none.
struct Adapters {
  TempDir directory;
  Checkpoint base = sample_base(directory / "base");
  std::string good = (directory / "adapters/good").string();
  std::string edited = (directory / "adapters/edited").string();
  std::string missing = (directory / "adapters/missing").string();
  std::string base_path = (directory / "base").string();

  Adapters() {
    AdapterConfig config = sample_config();
    write_sample(good, config, sample_tensors(), &base);
    write_sample(edited, config, sample_tensors(), &base);
    config.alpha = 16;
    write_file(fs::path(edited) / kAdapterConfigName, dump_adapter_config(config));
  }
  std::string file(const std::string& name) const { return (directory / name).string(); }
};

std::size_t count_lines(const std::string& text, std::string_view start) {
  std::size_t count = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) count += line.starts_with(start) ? 1 : 0;
  return count;
}

/// An adapter of `modules` modules that all work.
void write_wide(const fs::path& path, int modules) {
  TensorMap tensors;
  AdapterConfig config = sample_config();
  config.target_modules = std::vector<std::string>{"q_proj"};
  for (int i = 0; i < modules; ++i) {
    const std::string key = "base_model.model.layers." + std::to_string(i) + ".q_proj.lora_";
    tensors[key + "A.weight"] = normal_tensor(key + "A", {4, 6}, 0.3);
    tensors[key + "B.weight"] = normal_tensor(key + "B", {6, 4}, 0.3);
  }
  write_sample(path, config, tensors);
}

}  // namespace

TEST_CASE("explain takes ids, beginnings and names, several at once, in text and as JSON") {
  const CommandResult text = lora_verify({"--explain", "LV501,key-missing"});
  REQUIRE(text.code == 0);
  REQUIRE(contains(text.out, "LV302 key-missing (error, check architecture)"));
  REQUIRE(contains(text.out, "LV501 base-mismatch"));
  for (const char* part : {"looks at", "means", "fix"}) REQUIRE(contains(text.out, part));
  CommandResult json = lora_verify({"--explain", "LV50", "--json"});
  const JsonArray& rules = *json.result().find("rules")->as_array();
  REQUIRE(rules.size() >= 5);
  for (const Json& rule : rules) {
    REQUIRE(rule.find("rule")->as_string()->starts_with("LV50"));
    for (const char* member : {"name", "severity", "check", "looks_at", "says", "fix"})
      REQUIRE(!rule.find(member)->as_string()->empty());
  }
}

TEST_CASE(
    "an unknown rule is a usage error with the closest one, for every flag that takes rules") {
  const Adapters adapters;
  for (const char* flag : {"--explain", "--select", "--ignore"}) {
    const CommandResult result = lora_verify({adapters.good, flag, "key-mising"});
    REQUIRE(result.code == 2);
    REQUIRE(contains(result.err, std::string("cannot use \"key-mising\" for ") + flag));
    REQUIRE(contains(result.err, "did you mean key-missing?"));
  }
}

TEST_CASE("ignored findings change the exit code, are counted, and never those of a missing path") {
  Adapters adapters;
  REQUIRE(lora_verify({adapters.edited}).code == 1);
  const CommandResult ignored = lora_verify({adapters.edited, "--ignore", "scaling-changed"});
  REQUIRE(ignored.code == 0);
  REQUIRE(contains(ignored.out, "1 finding left out (--select, --ignore)"));
  REQUIRE(lora_verify({adapters.edited, "--select", "LV4"}).code == 0);
  REQUIRE(lora_verify({adapters.edited, "--select", "LV2"}).code == 1);
  REQUIRE(lora_verify({adapters.missing, "--ignore", "LV1"}).code == 3);
}

TEST_CASE("a healthy adapter of 210 modules is one screen of at most 40 lines") {
  const TempDir directory;
  write_wide(directory / "wide", 210);
  const CommandResult result = lora_verify({(directory / "wide").string()});
  REQUIRE(result.code == 0);
  INFO(result.out);
  REQUIRE(std::count(result.out.begin(), result.out.end(), '\n') <= 40);
  REQUIRE(contains(result.out, "verdict: plausible"));
}

TEST_CASE("several adapters and a quoted pattern end with a summary") {
  Adapters adapters;
  write_file(adapters.directory / "adapters/README.md", "no adapter\n");
  const CommandResult result = lora_verify({adapters.file("adapters") + "/*", adapters.missing});
  REQUIRE(result.code == 3);
  REQUIRE(contains(result.err, "leaving out 1 file that"));
  REQUIRE(contains(result.out, "3 adapters: 1 plausible, 1 contradicted, 1 unreadable"));
  REQUIRE(!contains(result.out, "dW mean"));
  CommandResult json = lora_verify({adapters.good, adapters.edited, "--json"});
  const Json& summary = *json.result().find("summary");
  REQUIRE(summary.find("plausible")->as_int() == 1);
  REQUIRE(summary.find("contradicted")->as_int() == 1);
  REQUIRE(summary.find("errors")->as_int() == 1);
  REQUIRE(lora_verify({adapters.file("nothing-*")}).code == 3);
}

TEST_CASE("adapters of one run: which cannot be loaded together, and which are for other bases") {
  const TempDir directory;
  const auto write = [&](const char* name, const char* base, BiasMode bias) {
    AdapterConfig config = sample_config();
    config.base_model_name_or_path = base;
    config.bias = bias;
    write_sample(directory / name, config, sample_tensors());
    return (directory / name).string();
  };
  const std::string a = write("a", "one", BiasMode::all), b = write("b", "one", BiasMode::all);
  const std::string c = write("c", "two", BiasMode::all);
  const CommandResult same = lora_verify({a, b, "--strict"});
  // They are no worse for it: nobody asked to load them together.
  REQUIRE(same.code == 0);
  REQUIRE(contains(same.out, "note LV318 cannot be loaded together with " + b + " (they train"));
  REQUIRE(contains(same.out, "note LV318 cannot be loaded together with " + a + " (they train"));
  REQUIRE(!contains(same.out, "different bases"));
  const CommandResult three = lora_verify({(directory / "*").string()});
  REQUIRE(three.code == 0);
  REQUIRE(contains(
      three.out, "they are for 2 different bases and cannot all be loaded together:\n  one: " + a +
                     ", " + b + "\n  two: " + c + "\n"));
  REQUIRE(count_lines(three.out, "note LV318") == 2);
  CommandResult json = lora_verify({a, c, "--json"});
  const JsonArray& bases = *json.result().find("summary")->find("bases")->as_array();
  REQUIRE(bases.size() == 2);
  REQUIRE(*bases[1].find("name") == Json("two"));
  REQUIRE(bases[1].find("root")->is_null());
  REQUIRE(*bases[1].find("adapters") == Json(JsonArray{c}));
  REQUIRE(!contains(lora_verify({a, c}).out, "LV318"));
}

TEST_CASE("the text has colour where it is asked for") {
  const Adapters adapters;
  REQUIRE(
      contains(lora_verify({adapters.edited, "--color", "always"}).out, "\033[1;31merror LV204"));
  REQUIRE(!contains(lora_verify({adapters.edited}).out, "\033["));
}

TEST_CASE("github: one annotation a finding, escaped, and nothing else on stdout") {
  Adapters adapters;
  const fs::path odd = adapters.directory / "a,b:100%";
  fs::rename(adapters.edited, odd);
  const CommandResult result = lora_verify({odd.string(), "--format", "github"});
  REQUIRE(result.code == 1);
  REQUIRE(count_lines(result.out, "::error file=") == 1);
  REQUIRE(count_lines(result.out, "::") ==
          static_cast<std::size_t>(std::count(result.out.begin(), result.out.end(), '\n')));
  REQUIRE(contains(result.out, "a%2Cb%3A100%25/adapter_config.json,title=LV204 scaling-changed::"));
  REQUIRE(contains(result.out, "%0Ahint: "));
}

TEST_CASE("junit: suites, cases by check, failures, skipped checks, and counts that add up") {
  Adapters adapters;
  const CommandResult result =
      lora_verify({adapters.good, adapters.edited, adapters.missing, "--format", "junit"});
  REQUIRE(result.code == 3);
  REQUIRE(result.out.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites"));
  REQUIRE(count_lines(result.out, "  <testsuite ") == 3);
  REQUIRE(contains(result.out, "<testcase classname=\"lora.verify\" name=\"integrity\"/>"));
  REQUIRE(contains(result.out, "<failure type=\"LV204 scaling-changed\""));
  REQUIRE(contains(result.out, "<error type=\"LV101 file-corrupt\""));
  REQUIRE(count_lines(result.out, "      <failure") == 1);
  REQUIRE(count_lines(result.out, "      <error") == 1);
  std::istringstream lines(result.out);
  std::string head;
  std::getline(lines, head);
  std::getline(lines, head);
  REQUIRE(contains(head, "tests=\"" + std::to_string(count_lines(result.out, "    <testcase")) +
                             "\" failures=\"1\" errors=\"1\""));
}

TEST_CASE("junit: names with markup and control characters stay well-formed") {
  const TempDir directory;
  const fs::path odd = directory / "a<b>&\"\x01\"";
  write_sample(odd, sample_config(), sample_tensors());
  const CommandResult result = lora_verify({odd.string(), "--format", "junit"});
  REQUIRE(contains(result.out, "a&lt;b&gt;&amp;&quot;\\x01&quot;"));
  REQUIRE(!contains(result.out, "\x01"));
}

TEST_CASE("sarif: version, rules, results with locations and stable fingerprints") {
  Adapters adapters;
  const CommandResult result = lora_verify({adapters.edited, "--format", "sarif"});
  REQUIRE(result.code == 1);
  const Json document = parse_json(result.out, "sarif");
  REQUIRE(*document.find("version")->as_string() == "2.1.0");
  const Json& only = document.find("runs")->as_array()->at(0);
  const JsonArray& rules = *only.find("tool")->find("driver")->find("rules")->as_array();
  const JsonArray& results = *only.find("results")->as_array();
  REQUIRE(results.size() == 1);
  for (const Json& entry : results) {
    REQUIRE(*entry.find("ruleId")->as_string() == "LV204");
    REQUIRE(*entry.find("level")->as_string() == "error");
    const auto index = static_cast<std::size_t>(*entry.find("ruleIndex")->as_int());
    REQUIRE(*rules.at(index).find("id") == *entry.find("ruleId"));
    const std::string& uri = *entry.find("locations")
                                  ->as_array()
                                  ->at(0)
                                  .find("physicalLocation")
                                  ->find("artifactLocation")
                                  ->find("uri")
                                  ->as_string();
    REQUIRE(uri.starts_with("file:///"));
    REQUIRE(uri.ends_with("/adapter_config.json"));
  }
  REQUIRE(only.find("invocations")->as_array()->at(0).find("exitCode")->as_int() == 1);
  // The same finding has the same fingerprint on another day; another alpha is another finding.
  const auto fingerprints = [&] {
    const Json now = parse_json(lora_verify({adapters.edited, "--format", "sarif"}).out, "sarif");
    return *now.find("runs")->as_array()->at(0).find("results")->as_array()->at(0).find(
        "partialFingerprints");
  };
  REQUIRE(fingerprints() == *results.at(0).find("partialFingerprints"));
  AdapterConfig config = sample_config();
  config.alpha = 32;
  write_file(fs::path(adapters.edited) / kAdapterConfigName, dump_adapter_config(config));
  REQUIRE(fingerprints() != *results.at(0).find("partialFingerprints"));
}

TEST_CASE("sarif: findings of a baseline are there, suppressed") {
  Adapters adapters;
  const std::string baseline = adapters.file("known.json");
  lora_verify({adapters.edited, "--write-baseline", baseline});
  const CommandResult result =
      lora_verify({adapters.edited, "--baseline", baseline, "--format", "sarif"});
  REQUIRE(result.code == 0);
  const Json document = parse_json(result.out, "sarif");
  const JsonArray& results = *document.find("runs")->as_array()->at(0).find("results")->as_array();
  REQUIRE(results.size() == 1);
  for (const Json& entry : results) REQUIRE(entry.find("suppressions") != nullptr);
}

TEST_CASE("a failure of the run is part of the document, and --json is another format") {
  const Adapters adapters;
  const std::vector<std::string> bad_base{adapters.good, "--base", adapters.missing, "--format"};
  const auto with = [&](const char* format) {
    std::vector<std::string> arguments = bad_base;
    arguments.emplace_back(format);
    CommandResult result = lora_verify(arguments);
    REQUIRE(result.code == 3);
    return result.out;
  };
  REQUIRE(contains(with("junit"), "<error type=\"not_found\""));
  REQUIRE(count_lines(with("github"), "::error title=lora verify::") == 1);
  const Json sarif = parse_json(with("sarif"), "sarif");
  const Json& invocation =
      sarif.find("runs")->as_array()->at(0).find("invocations")->as_array()->at(0);
  REQUIRE(invocation.find("executionSuccessful")->as_bool() == false);
  REQUIRE(lora_verify({adapters.good, "--format", "sarif", "--json"}).code == 2);
}

TEST_CASE("full hashes what the lock vouches for, and the text says which was done") {
  const Adapters adapters;
  REQUIRE(contains(lora_verify({adapters.good, "--base", adapters.base_path}).out,
                   "2 targeted tensors hashed, base.lock.json vouches for the other 2"));
  REQUIRE(contains(lora_verify({adapters.good, "--base", adapters.base_path, "--full"}).out,
                   "all 4 tensors hashed"));
}
