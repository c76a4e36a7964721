#include "engine/train_fixtures.h"
//
#include "engine/probe.h"

using namespace lora;
using namespace lora::engine;
using namespace lora::testing;

TEST_CASE("the probe of an mlp records base and adapted outputs on the same rows") {
  const TrainFixture fixture;
  const TrainReport report = fixture.train(fixture.options("run"), {make_model, nullptr});
  const Adapter adapter = open_adapter(report.adapter);
  ModelOptions options;
  options.base = &fixture.base;
  options.adapters = {&adapter};
  const Probe probe = probe_model(*make_model(options), options);
  REQUIRE(probe.inputs.at("x").shape == std::vector<std::int64_t>{4, 10});
  REQUIRE(probe.base.values.shape == std::vector<std::int64_t>{4, 2});
  REQUIRE(probe.base.digest != probe.adapted.digest);
  REQUIRE(probe.compute == "f32");

  const Probe recorded = read_probe(report.adapter / kProbeName);
  REQUIRE(recorded.inputs.at("x").to_f32() == probe.inputs.at("x").to_f32());
  REQUIRE(recorded.base.digest == probe.base.digest);
  REQUIRE(recorded.adapted.digest == probe.adapted.digest);
}

TEST_CASE("token models are recorded at every position, without and with the adapter") {
  struct Counting final : EngineModel {
    bool is_enabled = true;
    std::vector<ParameterInfo> parameters() const override { return {}; }
    TensorMap forward(const TensorMap&) override {
      std::vector<float> logits(2 * 3 * 2);
      std::iota(logits.begin(), logits.end(), is_enabled ? 100.0F : 0.0F);
      return {{"logits", Tensor::from_f32({2, 3, 2}, logits)}};
    }
    void enable_adapters(bool enabled) override { is_enabled = enabled; }
    std::vector<std::int64_t> generate(const std::vector<std::int64_t>&,
                                       const GenerateOptions&) override {
      return {};
    }
  } model;
  const TrainFixture fixture;
  ModelOptions options;
  options.base = &fixture.base;
  const Probe probe = probe_model(model, options);
  REQUIRE(probe.base.values.to_f32() == std::vector<float>{1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10});
  REQUIRE(probe.adapted.values.to_f32().front() == 101);
}

TEST_CASE("a base without a known configuration cannot be probed") {
  const TrainFixture fixture;
  Checkpoint base = fixture.base;
  base.config.reset();
  ModelOptions options;
  options.base = &base;
  FakeModel* never = nullptr;
  require_error(ErrorKind::unsupported, "no configuration", [&] { probe_model(*never, options); });
}
