#include "lora/ops/adapter_index.h"
#include "lora/ops/adapter_set.h"
#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

namespace fs = std::filesystem;

namespace {

TensorMap with_head(const std::string& values) {
  TensorMap tensors = sample_tensors();
  tensors["base_model.model.head.weight"] = normal_tensor(values, {3, 2});
  return tensors;
}

/// Adapters of one run, each in a folder of its own.
class Run {
 public:
  fs::path write(const std::string& name, const AdapterConfig& config, const TensorMap& tensors,
                 const Checkpoint* base = nullptr) {
    const fs::path path = directory_ / name;
    write_sample(path, config, tensors, base);
    companions_.open(path);
    return path;
  }

  VerifyReport verify(const fs::path& path, const Checkpoint* base = nullptr) const {
    VerifyOptions options;
    options.adapter = path;
    options.base = base;
    options.companions = &companions_;
    return lora::verify(options);
  }

 private:
  TempDir directory_;
  AdapterIndex companions_;
};

AdapterConfig named(const std::string& base, BiasMode bias = BiasMode::none) {
  AdapterConfig config = sample_config();
  config.base_model_name_or_path = base;
  config.bias = bias;
  return config;
}

}  // namespace

TEST_CASE("LV318: adapters in sub-directories that cannot share a model are named with the field") {
  VerifyCase sample;
  AdapterConfig config = sample_config();
  config.bias = BiasMode::all;
  config.modules_to_save = {"head"};
  const auto with_neighbour = [&](const AdapterConfig& other, const TensorMap& tensors) {
    sample.run(config, with_head("x"));
    write_sample(sample.adapter() / "second", other, tensors);
    return sample.again();
  };
  AdapterConfig other = config;
  require_rule(with_neighbour(other, with_head("y")), "LV318", Severity::note,
               "with second: they replace with different values: head");
  require_rule(with_neighbour(other, with_head("x")), "LV318", Severity::note,
               "with second: they train biases");
  other.bias = BiasMode::none;
  forbid_rule(with_neighbour(other, with_head("x")), "LV318");
  other.modules_to_save.clear();
  forbid_rule(with_neighbour(other, sample_tensors()), "LV318");
  other.other["kasa_config"] = JsonObject{{"beta", 0.1}};
  require_rule(with_neighbour(other, sample_tensors()), "LV318", Severity::note, "uses KaSA");
}

TEST_CASE("LV318: adapters of one run on one base that cannot be loaded together are notes") {
  Run run;
  const fs::path a = run.write("a", named("one", BiasMode::all), sample_tensors());
  const fs::path plain = run.write("plain", named("one"), sample_tensors(2));
  for (int i = 0; i < 5; ++i)
    run.write("b" + std::to_string(i), named("one", BiasMode::lora_only), sample_tensors(3));
  const VerifyReport report = run.verify(a);
  require_rule(report, "LV318", Severity::note, "b0 (they train biases (bias all and bias");
  require_rule(report, "LV318", Severity::note, "and 2 more");
  REQUIRE(!report.has_error());
  // The adapter itself is one of the run, and one finding says it all.
  REQUIRE(std::count_if(report.findings.begin(), report.findings.end(),
                        [](const Finding& finding) { return finding.rule == "LV318"; }) == 1);
  forbid_rule(run.verify(plain), "LV318");
}

TEST_CASE("LV318: adapters that name different bases are unrelated until one base is given") {
  Run run;
  const fs::path a = run.write("a", named("one", BiasMode::all), sample_tensors());
  run.write("b", named("two", BiasMode::all), sample_tensors(2));
  forbid_rule(run.verify(a), "LV318");
  const TempDir directory;
  const Checkpoint base = sample_base(directory / "base");
  require_rule(run.verify(a, &base), "LV318", Severity::note, "they train biases");
}

TEST_CASE("LV318: recorded roots decide before names whether two bases are one") {
  const TempDir directory;
  const Checkpoint base = sample_base(directory / "base"), other = sample_base(directory / "o", 5);
  Run run;
  const fs::path a = run.write("a", named("one", BiasMode::all), sample_tensors(), &base);
  run.write("b", named("one", BiasMode::all), sample_tensors(2), &other);
  forbid_rule(run.verify(a), "LV318");
  run.write("c", named("two", BiasMode::all), sample_tensors(2), &base);
  require_rule(run.verify(a), "LV318", Severity::note, "c (they train biases");
}

TEST_CASE("LV318: what an adapter holds of the base is no conflict once the base is known") {
  Run run;
  const TempDir directory;
  Checkpoint base = sample_base(directory / "base");
  base.tensors["lm_head.weight"] = normal_tensor("x", {3, 2});
  const AdapterConfig config = config_on({"fc1", "fc2", "lm_head"});
  const auto on_head = [&](const char* copy) {
    TensorMap tensors = sample_tensors();
    add_pair(tensors, "lm_head", 4, 2, 3);
    if (copy != nullptr)
      tensors["base_model.model.lm_head.base_layer.weight"] = normal_tensor(copy, {3, 2});
    return tensors;
  };
  const fs::path plain = run.write("plain", config, on_head(nullptr));
  const fs::path copy = run.write("copy", config, on_head("x"));
  for (const fs::path& path : {plain, copy}) {
    require_rule(run.verify(path), "LV318", Severity::note, "adapts lm_head");
    forbid_rule(run.verify(path, &base), "LV318");
  }
  for (int i = 0; i < 5; ++i) run.write("other" + std::to_string(i), config, on_head("y"));
  for (const fs::path& path : {plain, copy})
    require_rule(run.verify(path, &base), "LV318", Severity::note, "and 2 more");
}

TEST_CASE("LV318: a site with another weight in each adapter is no site of one model") {
  Run run;
  const auto site = [](std::int64_t in, std::int64_t out) {
    TensorMap tensors;
    add_pair(tensors, "fc1", 4, in, out);
    return tensors;
  };
  const fs::path a = run.write("a", config_on({"fc1"}), site(10, 20));
  run.write("b", config_on({"fc1"}), site(10, 20));
  forbid_rule(run.verify(a), "LV318");
  run.write("c", config_on({"fc1"}), site(12, 20));
  require_rule(run.verify(a), "LV318", Severity::note, "shapes: fc1 [20, 10] and [20, 12]");
}

TEST_CASE("LV318: checkpoints of the same run and broken neighbours are no set") {
  VerifyCase sample;
  AdapterConfig config = sample_config();
  config.bias = BiasMode::all;
  sample.run(config, sample_tensors());
  write_sample(sample.adapter() / "checkpoint-10", config, sample_tensors());
  write_sample(sample.adapter() / "broken", config, sample_tensors());
  write_file(sample.adapter() / "broken" / kAdapterConfigName, "{");
  forbid_rule(sample.again(), "LV318");
}
