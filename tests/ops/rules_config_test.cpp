#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

namespace {

std::string with_members(const std::string& members) {
  return R"({"peft_type": "LORA", "peft_version": "0.21.2", "r": 4, "lora_alpha": 8,
             "target_modules": ["fc1", "fc2"], )" +
         members + "}";
}

}  // namespace

TEST_CASE("LV201: every violation of the configuration is a finding and the rest is checked") {
  VerifyCase sample;
  TensorMap tensors = sample_tensors();
  tensors.erase("base_model.model.fc2.lora_A.weight");
  const VerifyReport report = sample.run(
      with_members(R"("bias": "some", "use_dora": "yes", "task_type": "CHAT", "r": 4)"), tensors);
  REQUIRE(report.is_readable);
  REQUIRE(report.verdict == Verdict::contradicted);
  require_rule(report, "LV201", Severity::error, "\"bias\" is \"some\"");
  require_rule(report, "LV201", Severity::error, "\"use_dora\" is \"yes\"");
  require_rule(report, "LV201", Severity::error, "task_type is \"CHAT\"");
  require_rule(report, "LV201", Severity::error, "the key r is given more than once");
  require_rule(report, "LV303", "fc2");
  forbid_rule(sample.run(with_members(R"("bias": "none")"), sample_tensors()), "LV201");
}

TEST_CASE("LV201: broken expressions are violations, broken JSON is a damaged file") {
  VerifyCase sample;
  const VerifyReport report =
      sample.run(with_members(R"("rank_pattern": {"fc(": 4})"), sample_tensors());
  require_rule(report, "LV201", Severity::error, "fc(");
  require_rule(sample.run("{", sample_tensors()), "LV101", "JSON");
}

TEST_CASE("LV202: unknown keys are errors when set, notes when off or harmless") {
  VerifyCase sample;
  require_rule(sample.run(with_members(R"("use_quantum": true)"), sample_tensors()), "LV202",
               Severity::error, "use_quantum=true: unknown");
  require_rule(sample.run(with_members(R"("enable_lora": [true])"), sample_tensors()), "LV202",
               Severity::error, "enable_lora=[true]: changes the result");
  for (const char* members : {R"("use_quantum": false)", R"("future": null)", R"("odd": {})",
                              R"("merge_weights": true)", R"("enable_lora": null)"}) {
    INFO(members);
    const VerifyReport report = sample.run(with_members(members), sample_tensors());
    require_rule(report, "LV202", Severity::note, "does not know");
    require_healthy(report);
  }
  forbid_rule(sample.run(with_members(R"("use_rslora": false)"), sample_tensors()), "LV202");
}

TEST_CASE("LV203: modules of another rank are one finding") {
  VerifyCase sample;
  AdapterConfig config = sample_config();
  config.rank = 8;
  const VerifyReport report = sample.run(config, sample_tensors());
  require_rule(report, "LV203", Severity::error, "2 modules have rank 4, expected 8");
  REQUIRE(std::count_if(report.findings.begin(), report.findings.end(),
                        [](const Finding& f) { return f.rule == "LV203"; }) == 1);
  config.rank_pattern = {{"fc[12]", 4}};
  forbid_rule(sample.run(config, sample_tensors()), "LV203");
}

TEST_CASE("LV203: factors of two ranks are named") {
  VerifyCase sample;
  TensorMap tensors = sample_tensors();
  tensors["base_model.model.fc1.lora_B.weight"] = normal_tensor("b", {20, 3});
  require_rule(sample.run(sample_config(), tensors), "LV203", Severity::error,
               "B of fc1 has 3 columns");
}

TEST_CASE("LV212: initialisations that rewrite the base are warnings") {
  VerifyCase sample;
  AdapterConfig config = sample_config();
  for (const char* init : {"pissa", "pissa_niter_4", "olora", "OLoRA", "corda"}) {
    config.init_lora_weights = init;
    require_rule(sample.run(config, sample_tensors()), "LV212", Severity::warning, init);
  }
  for (const char* init : {"gaussian", "eva", "orthogonal", "mica"}) {
    config.init_lora_weights = init;
    forbid_rule(sample.run(config, sample_tensors()), "LV212");
  }
}

TEST_CASE("LV217: every alpha and rank behind a scaling is shown, as PEFT divides them") {
  VerifyCase sample;
  AdapterConfig config = sample_config();
  config.rank_pattern = {{"fc2", 2}};
  config.alpha_pattern = {{"fc2", 4.0}};
  TensorMap tensors = sample_tensors();
  add_pair(tensors, "fc2", 2, 20, 2);
  require_rule(sample.run(config, tensors), "LV217", Severity::note,
               "s = 2 in 1 module (alpha 4, rank 2), 2 in 1 module (alpha 8, rank 4)");
  config.use_rslora = true;
  require_rule(sample.run(config, tensors), "LV217", Severity::note,
               "s = 2.82843 in 1 module (alpha 4, root of rank 2), 4 in 1 module (alpha 8, root of "
               "rank 4), rsLoRA");
  // The default is no question where patterns say all of it.
  forbid_part(sample.run(R"({"peft_type": "LORA", "r": 4, "target_modules": ["fc1", "fc2"],
                             "alpha_pattern": {"fc1": 4, "fc2": 4}})",
                         sample_tensors()),
              "LV217", "lora_alpha is absent");
}

TEST_CASE("LV218: an alpha that no training starts from is a warning") {
  VerifyCase sample;
  AdapterConfig config = sample_config();
  forbid_rule(sample.run(config, sample_tensors()), "LV218");
  config.alpha = -8;
  require_rule(sample.run(config, sample_tensors()), "LV218", Severity::warning,
               "alpha is -8: the update is subtracted, in 2 modules: fc1, fc2");
  config.alpha = 4000;
  forbid_rule(sample.run(config, sample_tensors()), "LV218");
  config.alpha = 4004;
  require_rule(sample.run(config, sample_tensors()), "LV218", Severity::warning,
               "multiplied by 1001");
  // Zero has a rule of its own where nothing else is left of the module.
  config.alpha = 0;
  const VerifyReport zero = sample.run(config, sample_tensors());
  forbid_rule(zero, "LV218");
  require_rule(zero, "LV402", Severity::error, "lora_alpha is 0");
  config.use_dora = true;
  TensorMap tensors = sample_tensors();
  tensors["base_model.model.fc1.lora_magnitude_vector"] = normal_tensor("m", {20});
  tensors["base_model.model.fc2.lora_magnitude_vector"] = normal_tensor("n", {2});
  require_rule(sample.run(config, tensors), "LV218", Severity::warning, "the factors add nothing");
}

TEST_CASE("LV217: without a record the scaling is shown, and a default alpha is said to be one") {
  VerifyCase sample;
  require_rule(sample.run(sample_config(), sample_tensors()), "LV217", Severity::note,
               "s = 2 in 2 modules (alpha 8, rank 4)");
  const VerifyReport absent = sample.run(
      R"({"peft_type": "LORA", "r": 4, "target_modules": ["fc1", "fc2"]})", sample_tensors());
  require_rule(absent, "LV217", Severity::note, "lora_alpha is absent");
  TempDir directory;
  const Checkpoint base = sample_base(directory / "base");
  write_sample(directory / "recorded", sample_config(), sample_tensors(), &base);
  VerifyOptions options;
  options.adapter = directory / "recorded";
  forbid_rule(verify(options), "LV217");
}
