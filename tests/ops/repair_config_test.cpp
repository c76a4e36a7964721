// What repair makes of configurations.
#include "ops/repair_bench.h"

using namespace lora;
using namespace lora::testing;

TEST_CASE("a lost configuration is made from the tensors once alpha is given") {
  TensorMap tensors = sample_tensors();
  tensors[clean("fc2.lora_A.weight")] = normal_tensor("a", {2, 20});
  tensors[clean("fc2.lora_B.weight")] = normal_tensor("b", {2, 2});
  for (const char* text : {"", "  \n", "{\"r\": 4, \"lora_al", "[]"}) {
    Bench bench;
    bench.write(tensors);
    if (*text != 0) write_file(bench.damaged / kAdapterConfigName, text);
    RepairOptions options = bench.options();
    bench.require_refused(options, ErrorKind::usage, "lora_alpha is lost");
    options.alpha = 8;
    bench.require_refused(options, ErrorKind::usage, "use_rslora is lost");
    options.use_rslora = false;
    repair(options);
    const Adapter repaired = open_adapter(bench.output);
    REQUIRE(repaired.problems.empty());
    REQUIRE(repaired.config.rank == 2);
    REQUIRE(repaired.config.rank_pattern == NumberPattern{{"^fc1", 4}});
    REQUIRE(repaired.config.target_modules == ModuleSelector(Names{"fc1", "fc2"}));
    REQUIRE(repaired.find("fc1")->scaling == 2);
    REQUIRE(repaired.find("fc2")->scaling == 4);
  }
}

TEST_CASE("a lost configuration takes alpha from .alpha scalars or from the manifest") {
  Bench scalars;
  TensorMap tensors = sample_tensors();
  tensors[clean("fc1.alpha")] = Tensor::from_f32({}, std::vector<float>{16});
  tensors[clean("fc2.alpha")] = Tensor::from_f32({}, std::vector<float>{2});
  scalars.write(tensors);
  repair(scalars.options());
  const Adapter from_scalars = open_adapter(scalars.output);
  REQUIRE(from_scalars.find("fc1")->scaling == 4);
  REQUIRE(from_scalars.find("fc2")->scaling == 0.5);
  REQUIRE(from_scalars.tensors.size() == 4);

  for (const bool use_rslora : {false, true}) {
    Bench recorded;
    AdapterConfig config = sample_config();
    config.rank = 8;
    config.use_rslora = use_rslora;
    config.alpha_pattern = {{"fc2", 5}};
    TensorMap wide;
    for (const auto& [key, shape] :
         std::map<std::string, std::vector<std::int64_t>>{{"fc1.lora_A.weight", {8, 10}},
                                                          {"fc1.lora_B.weight", {20, 8}},
                                                          {"fc2.lora_A.weight", {8, 20}},
                                                          {"fc2.lora_B.weight", {2, 8}}})
      wide[clean(key)] = normal_tensor(key, shape);
    const Checkpoint base = sample_base(recorded.directory / "base");
    write_sample(recorded.damaged, config, wide, &base);
    std::filesystem::remove(recorded.damaged / kAdapterConfigName);
    repair(recorded.options());
    const Adapter repaired = open_adapter(recorded.output);
    REQUIRE(repaired.config.use_rslora == use_rslora);
    REQUIRE(repaired.config.alpha == 5);
    REQUIRE(repaired.config.alpha_pattern == NumberPattern{{"^fc1", 8}});
  }
}

TEST_CASE("alpha that the configuration has is not to be given, alpha that it lost is") {
  Bench bench;
  bench.write(sample_tensors());
  bench.write_config(sample_config());
  RepairOptions options = bench.options();
  options.alpha = 3;
  bench.require_refused(options, ErrorKind::usage, "--alpha and --rslora contradict it");
  write_file(bench.damaged / kAdapterConfigName,
             R"({"peft_type": "LORA", "r": 4, "target_modules": ["fc1", "fc2"]})");
  options.alpha.reset();
  bench.require_refused(options, ErrorKind::usage, "lora_alpha is lost");
  options.alpha = 8;
  repair(options);
  bench.require_sample();
}

TEST_CASE("a wrong r is put right by the shapes, with the pattern kept where it fits") {
  Bench bench;
  bench.write(sample_tensors());
  AdapterConfig wrong = sample_config();
  wrong.rank = 64;
  bench.write_config(wrong);
  const RepairReport report = repair(bench.options());
  REQUIRE(has_change(report, "r 64", "r 4"));
  bench.require_sample();

  Bench mixed;
  TensorMap tensors = sample_tensors();
  tensors[clean("fc2.lora_A.weight")] = normal_tensor("a", {2, 20});
  tensors[clean("fc2.lora_B.weight")] = normal_tensor("b", {2, 2});
  mixed.write(tensors);
  AdapterConfig patterned = sample_config();
  patterned.rank = 64;
  patterned.rank_pattern = {{"fc2", 2}};
  mixed.write_config(patterned);
  repair(mixed.options());
  const AdapterConfig repaired = open_adapter(mixed.output).config;
  REQUIRE(repaired.rank == 4);
  REQUIRE(repaired.rank_pattern == NumberPattern{{"fc2", 2}});
}

TEST_CASE("patterns whose order decides are rewritten to whole paths with the same effect") {
  Bench bench;
  bench.write(sample_tensors());
  AdapterConfig config = sample_config();
  config.alpha_pattern = {{"fc.", 16}, {"fc2", 2}};
  bench.write_config(config);
  const Adapter before = open_adapter(bench.damaged);
  repair(bench.options());
  const Adapter after = open_adapter(bench.output);
  REQUIRE(after.config.alpha_pattern.empty());
  for (const char* path : {"fc1", "fc2"})
    REQUIRE(after.find(path)->scaling == before.find(path)->scaling);

  Bench equal;
  equal.write(sample_tensors());
  config.alpha_pattern = {{"fc.", 16}, {"fc2", 16}};
  equal.write_config(config);
  REQUIRE(repair(equal.options()).changes.empty());
}

TEST_CASE("targets that leave out modules with factors are named again") {
  Bench bench;
  bench.write(sample_tensors());
  AdapterConfig config = sample_config();
  config.target_modules = Names{"fc1"};
  config.exclude_modules = Names{"fc2"};
  bench.write_config(config);
  const RepairReport report = repair(bench.options());
  REQUIRE(has_change(report, "target_modules without fc2", "fc1, fc2"));
  bench.require_sample();
}

TEST_CASE("members of early releases and other spellings are put right") {
  Bench bench;
  bench.write(sample_tensors());
  write_file(bench.damaged / kAdapterConfigName,
             R"({"r": "4", "lora_alpha": "8", "lora_dropout": null, "use_rslora": "False",
                 "merge_weights": false, "enable_lora": null, "runtime_config": {},
                 "peft_type": "lora", "peft_version": "0.21.2", "target_modules": ["fc1", "fc2"]})");
  const RepairReport report = repair(bench.options());
  REQUIRE(report.changes.size() == 8);
  REQUIRE(has_change(report, "merge_weights", "left out"));
  bench.require_sample();
  write_file(bench.damaged / kAdapterConfigName,
             R"({"r": 4, "lora_alpha": 8, "enable_lora": [true, false, true],
                 "peft_type": "LORA", "target_modules": ["fc1", "fc2"]})");
  RepairOptions options = bench.options();
  options.output = bench.directory / "second";
  require_error(ErrorKind::usage, "enable_lora is [true, false, true]", [&] { repair(options); });
}

TEST_CASE("a configuration that no tensor can correct is refused with every fault") {
  Bench bench;
  bench.write(sample_tensors());
  write_file(bench.damaged / kAdapterConfigName,
             R"({"peft_type": "LORA", "r": 4, "lora_alpha": "much", "lora_dropout": 7,
                 "target_modules": ["fc1", "fc2"]})");
  bench.require_refused(bench.options(), ErrorKind::usage, "lora_dropout");
  bench.require_refused(bench.options(), ErrorKind::usage, "lora_alpha");
}

TEST_CASE("DoRA magnitudes get PEFT's name and the switch that belongs to them") {
  Bench bench;
  TensorMap tensors = sample_tensors();
  tensors[clean("fc1.lora_magnitude_vector.weight")] = normal_tensor("m", {20});
  tensors[clean("fc2.lora_magnitude_vector.weight")] = normal_tensor("n", {2});
  bench.write(tensors);
  bench.write_config(sample_config());
  const RepairReport report = repair(bench.options());
  REQUIRE(has_change(report, "lora_magnitude_vector.weight in 2 names", "lora_magnitude_vector"));
  REQUIRE(has_change(report, "use_dora false", "use_dora true"));
  REQUIRE(open_adapter(bench.output).tensors.contains(clean("fc1.lora_magnitude_vector")));
}

TEST_CASE("a configuration that the manifest contradicts gets the recorded strength back") {
  Bench bench;
  const Checkpoint base = sample_base(bench.directory / "base");
  write_sample(bench.damaged, sample_config(), sample_tensors(), &base);
  AdapterConfig edited = sample_config();
  edited.alpha = 64;
  bench.write_config(edited);
  REQUIRE(has_change(repair(bench.options()), "lora_alpha 64", "lora_alpha 8"));
  bench.require_sample();
}

TEST_CASE("biases that were never saved leave an honest configuration and a note") {
  Bench bench;
  bench.write(sample_tensors());
  AdapterConfig config = sample_config();
  config.bias = BiasMode::lora_only;
  bench.write_config(config);
  const RepairReport report = repair(bench.options());
  REQUIRE(has_change(report, "bias lora_only", "bias none"));
  REQUIRE(report.notes.at(0).find("they are lost") != std::string::npos);
  bench.require_sample();
}

TEST_CASE("indices of token rows cannot be made up") {
  Bench bench;
  TensorMap tensors = sample_tensors();
  tensors[clean("emb.token_adapter.trainable_tokens_delta")] = normal_tensor("t", {2, 4});
  bench.write(tensors);
  bench.require_refused(bench.options(), ErrorKind::usage, "trainable_token_indices (emb)");
}
