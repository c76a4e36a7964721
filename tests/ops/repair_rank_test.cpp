// An `r` that is no rank: what verify says of it and what repair makes of it.
#include "ops/repair_bench.h"
#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

namespace {

std::string config_with(const std::string& members) {
  return R"({"peft_type": "LORA", "lora_alpha": 8, "target_modules": ["fc1", "fc2"], )" + members +
         "}";
}

}  // namespace

TEST_CASE("LV201 says that an r is unusable, and LV203 compares with no default instead") {
  VerifyCase sample;
  for (const char* r : {"0", "-4", "true", "null", "4.8", "\"many\"", "1e12", "[4]"}) {
    const VerifyReport report =
        sample.run(config_with(R"("r": )" + std::string(r)), sample_tensors());
    INFO(r);
    require_rule(report, "LV201", Severity::error, "field \"r\" is ");
    require_rule(report, "LV201", Severity::error,
                 "PEFT fails on it when it makes the layers, and no rank can be read from it");
    forbid_rule(report, "LV203");
  }
}

TEST_CASE("an r that spells a rank is compared as that rank") {
  VerifyCase sample;
  for (const char* r : {"4.0", "\"4\""}) {
    const VerifyReport report =
        sample.run(config_with(R"("r": )" + std::string(r)), sample_tensors());
    INFO(r);
    require_rule(report, "LV201", Severity::error, "read as 4 here");
    forbid_rule(report, "LV203");
  }
  require_rule(sample.run(config_with(R"("r": "6")"), sample_tensors()), "LV203", Severity::error,
               "have rank 4, expected 6");
  require_rule(sample.run(config_with(R"("r": 0, "rank_pattern": {"fc2": 2})"), sample_tensors()),
               "LV203", Severity::error, "1 module has rank 4, expected 2");
}

TEST_CASE("repair writes the rank of the shapes for an r that is none, and shows what was there") {
  for (const char* r : {"0", "-4", "true", "null", "4.8", "\"many\""}) {
    Bench bench;
    bench.write(sample_tensors());
    write_file(bench.damaged / kAdapterConfigName,
               config_with(R"("peft_version": "0.21.2", "r": )" + std::string(r)));
    const RepairReport report = repair(bench.options());
    INFO(r);
    REQUIRE(report.changes.size() == 1);
    REQUIRE(report.changes[0].from == "r " + std::string(r));
    REQUIRE(report.changes[0].to == "r 4");
    bench.require_sample();
  }
}

TEST_CASE("also where the shapes happen to have the rank that PEFT assumes") {
  Bench bench;
  TensorMap tensors;
  add_pair(tensors, "base_model.model.fc1", 8);
  bench.write(tensors);
  write_file(bench.damaged / kAdapterConfigName,
             R"({"peft_type": "LORA", "lora_alpha": 8, "target_modules": ["fc1"], "r": true})");
  const RepairReport report = repair(bench.options());
  REQUIRE(has_change(report, "r true", "r 8"));
  REQUIRE(open_adapter(bench.output).config.rank == 8);
}

TEST_CASE("ranks of a pattern stay where r is none") {
  Bench bench;
  TensorMap tensors = sample_tensors();
  tensors[clean("fc2.lora_A.weight")] = normal_tensor("a", {2, 20});
  tensors[clean("fc2.lora_B.weight")] = normal_tensor("b", {2, 2});
  bench.write(tensors);
  write_file(bench.damaged / kAdapterConfigName,
             config_with(R"("r": 0, "rank_pattern": {"fc2": 2})"));
  repair(bench.options());
  const AdapterConfig repaired = open_adapter(bench.output).config;
  REQUIRE(repaired.rank == 4);
  REQUIRE(repaired.rank_pattern == NumberPattern{{"fc2", 2}});
}

TEST_CASE("stacked experts do not tell their rank") {
  Bench bench;
  TensorMap tensors;
  add_pair(tensors, "base_model.model.experts", 8);
  bench.write(tensors);
  write_file(bench.damaged / kAdapterConfigName,
             R"({"peft_type": "LORA", "lora_alpha": 8, "target_modules": [], "r": 0,
                 "target_parameters": ["experts.up"]})");
  bench.require_refused(bench.options(), ErrorKind::usage, "its r 0 is no rank");
  VerifyOptions options;
  options.adapter = bench.damaged;
  require_rule(verify(options), "LV203", Severity::error, "no usable r");
}
