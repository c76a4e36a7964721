#include "lora/ops/finding_filter.h"

#include <algorithm>

#include "lora/format/safetensors.h"
#include "lora/ops/verify.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

Finding finding_of(std::string rule, std::string message, Severity severity = Severity::error) {
  Finding finding;
  finding.rule = std::move(rule);
  finding.message = std::move(message);
  finding.severity = severity;
  return finding;
}

std::vector<std::string> rules_in(const Findings& findings) {
  std::vector<std::string> rules;
  for (const Finding& finding : findings) rules.push_back(finding.rule);
  return rules;
}

using Rules = std::vector<std::string>;

/// An adapter with one warning (LV205, a target entry that selects nothing) and, by its edited
/// alpha, errors of LV204.
struct Edited {
  TempDir directory;
  Checkpoint base = sample_base(directory / "base");
  std::filesystem::path adapter = directory / "adapter";

  Edited() {
    AdapterConfig config = sample_config();
    config.target_modules = std::vector<std::string>{"fc1", "fc2", "fc9"};
    write_sample(adapter, config, sample_tensors(), &base);
    config.alpha = 16;
    write_file(adapter / kAdapterConfigName, dump_adapter_config(config));
  }
  VerifyReport run(const FindingFilter& filter) {
    VerifyOptions options;
    options.adapter = adapter;
    options.base = &base;
    options.filter = filter;
    return verify(options);
  }
};

CheckStatus status_of(const VerifyReport& report, std::string_view name) {
  const auto found = std::find_if(report.checks.begin(), report.checks.end(),
                                  [&](const CheckResult& check) { return check.name == name; });
  REQUIRE(found != report.checks.end());
  return found->status;
}

}  // namespace

TEST_CASE("a selector is an id, the beginning of ids, or a name") {
  REQUIRE(rules_of_selector("LV305") == Rules{"LV305"});
  REQUIRE(rules_of_selector("lv305") == Rules{"LV305"});
  REQUIRE(rules_of_selector("key-missing") == Rules{"LV302"});
  REQUIRE(rules_of_selector("KEY-missing") == Rules{"LV302"});
  const Rules fives = rules_of_selector("LV50");
  REQUIRE(std::find(fives.begin(), fives.end(), "LV501") != fives.end());
  REQUIRE(std::find(fives.begin(), fives.end(), "LV401") == fives.end());
  for (const char* unknown : {"LV", "LV999", "key", "", "L"})
    REQUIRE(rules_of_selector(unknown).empty());
}

TEST_CASE("select chooses rules, ignore wins over it, and nothing is lost") {
  const Findings all{finding_of("LV302", "a"), finding_of("LV305", "b"), finding_of("LV401", "c")};
  FindingFilter filter;
  filter.select = {"LV3"};
  Findings findings = all;
  FilterOutcome outcome = apply_filter(filter, "x", findings);
  REQUIRE(rules_in(findings) == Rules{"LV302", "LV305"});
  REQUIRE(rules_in(outcome.left_out) == Rules{"LV401"});
  filter.ignore = {"key-missing"};
  findings = all;
  outcome = apply_filter(filter, "x", findings);
  REQUIRE(rules_in(findings) == Rules{"LV305"});
  REQUIRE(outcome.left_out.size() == 2);
}

TEST_CASE("a selector that means no rule is a usage error, in select and in ignore") {
  Findings findings;
  FindingFilter filter;
  filter.ignore = {"key-mising"};
  require_error(ErrorKind::usage, "key-mising", [&] { apply_filter(filter, "x", findings); });
  filter = {};
  filter.select = {"LV999"};
  require_error(ErrorKind::usage, "LV999", [&] { apply_filter(filter, "x", findings); });
}

TEST_CASE("a baseline survives its file, and notes and unreadable paths are not in it") {
  TempDir directory;
  Finding error = finding_of("LV302", "3 modules have no tensors");
  error.tensor = "t";
  const FindingBaseline baseline = make_baseline(
      {error, finding_of("LV205", "fc9 selects nothing", Severity::warning),
       finding_of("LV502", "no proof", Severity::note), finding_of("LV101", "damaged")},
      directory / "adapters/a", directory.path());
  REQUIRE(baseline.accepted.size() == 2);
  REQUIRE(baseline.accepted.front().adapter == "adapters/a");
  write_file(directory / "b.json", dump_baseline(baseline));
  const FindingBaseline read = read_baseline(directory / "b.json");
  REQUIRE(read.accepted == baseline.accepted);
  REQUIRE(read.folder == baseline.folder);
  REQUIRE(dump_baseline(read) == dump_baseline(baseline));
}

TEST_CASE("a baseline that is none is refused with the place") {
  TempDir directory;
  const auto refuse = [&](std::string_view text, ErrorKind kind, std::string_view part) {
    write_file(directory / "b.json", text);
    require_error(kind, part, [&] { read_baseline(directory / "b.json"); });
  };
  const std::string start = R"({"schema": "lora.verify_baseline/2", "accepted": )";
  refuse("[]", ErrorKind::malformed, "expected an object");
  refuse(R"({"schema": "lora.verify_baseline/3", "accepted": []})", ErrorKind::unsupported, "/3");
  refuse(R"({"schema": "lora.verify_baseline/2"})", ErrorKind::malformed, "no member \"accepted\"");
  refuse(start + "{}}", ErrorKind::malformed, "no array");
  refuse(start + R"([{"rule": "LV302"}]})", ErrorKind::malformed, "entry 1");
  refuse(start + R"([{"rule": "LV3", "adapter": "a", "file": null, "module": null, "tensor": null,
                      "message": "x", "unlisted": null}]})",
         ErrorKind::malformed, "\"LV3\" is no rule");
  refuse(start + R"([{"rule": "LV302", "adapter": null, "file": null, "module": null,
                      "tensor": null, "message": "x", "unlisted": null}]})",
         ErrorKind::malformed, "adapter is null");
  require_error(ErrorKind::not_found, "none.json", [&] { read_baseline(directory / "none.json"); });
}

TEST_CASE("the filter acts before the verdict, and what it hides is no proof") {
  Edited sample;
  const VerifyReport plain = sample.run({});
  REQUIRE(plain.verdict == Verdict::contradicted);
  REQUIRE(plain.verdict_reason.find("LV204 scaling-changed") != std::string::npos);
  REQUIRE(status_of(plain, "architecture") == CheckStatus::failed);
  FindingFilter filter;
  filter.ignore = {"scaling-changed"};
  const VerifyReport ignored = sample.run(filter);
  REQUIRE(!ignored.has_error());
  REQUIRE(!ignored.left_out.empty());
  REQUIRE(ignored.verdict == Verdict::plausible);
  REQUIRE(ignored.verdict_reason.find("left out") != std::string::npos);
  REQUIRE(status_of(ignored, "architecture") == CheckStatus::waived);
  filter.ignore = {"target-entry-dead"};
  const VerifyReport warning_ignored = sample.run(filter);
  REQUIRE(warning_ignored.verdict == Verdict::contradicted);
}

TEST_CASE("ignoring a warning alone does not stand in the way of a proof") {
  Edited sample;
  AdapterConfig config = sample_config();
  config.target_modules = std::vector<std::string>{"fc1", "fc2", "fc9"};
  write_sample(sample.adapter, config, sample_tensors(), &sample.base);
  FindingFilter filter;
  filter.ignore = {"LV205"};
  const VerifyReport report = sample.run(filter);
  REQUIRE(report.left_out.size() == 1);
  REQUIRE(report.verdict == Verdict::proven);
}

TEST_CASE("a baseline of a run accepts that run and nothing new") {
  Edited sample;
  const VerifyReport before = sample.run({});
  FindingFilter filter;
  filter.baseline = make_baseline(before.findings, sample.adapter, sample.directory.path());
  const VerifyReport after = sample.run(filter);
  REQUIRE(!after.has_error());
  REQUIRE(after.baseline_usage.size() == filter.baseline.accepted.size());
  REQUIRE(after.accepted.size() + after.findings.size() == before.findings.size());
  TensorMap tensors = sample_tensors();
  tensors.erase("base_model.model.fc2.lora_A.weight");
  write_safetensors(sample.adapter / kAdapterWeightsName, tensors, &pytorch_metadata(),
                    WriteOptions{true, nullptr});
  REQUIRE(sample.run(filter).has_error());
}

TEST_CASE("an unreadable path is never filtered away") {
  TempDir directory;
  VerifyOptions options;
  options.adapter = directory / "missing";
  options.filter.ignore = {"LV1", "file-corrupt"};
  options.filter.select = {"LV4"};
  const VerifyReport report = verify(options);
  REQUIRE(!report.is_readable);
  REQUIRE(report.has_error());
  REQUIRE(rules_in(report.findings) == Rules{"LV101"});
}
