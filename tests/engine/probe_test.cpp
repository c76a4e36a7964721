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
  REQUIRE(probe.base.shape == std::vector<std::int64_t>{4, 2});
  REQUIRE(probe.base.to_f32() != probe.adapted.to_f32());
  REQUIRE(probe.compute == "f32");

  const Probe recorded = read_probe(report.adapter / kProbeName);
  REQUIRE(recorded.inputs.at("x").to_f32() == probe.inputs.at("x").to_f32());
  REQUIRE(recorded.base.to_f32() == probe.base.to_f32());
  REQUIRE(recorded.adapted.to_f32() == probe.adapted.to_f32());
}

TEST_CASE("the probe input of a decoder stays below its vocabulary and positions") {
  ModelConfig config;
  config.decoder.emplace();
  config.decoder->vocab_size = 11;
  config.decoder->max_position_embeddings = 5;
  const Tensor ids = probe_inputs(config).at("input_ids");
  REQUIRE(ids.shape == std::vector<std::int64_t>{2, 5});
  const auto* values = reinterpret_cast<const std::int64_t*>(ids.bytes.data());
  for (int i = 0; i < 10; ++i) REQUIRE((values[i] >= 0 && values[i] < 11));
  config.decoder->max_position_embeddings = 4096;
  REQUIRE(probe_inputs(config).at("input_ids").shape == std::vector<std::int64_t>{2, 16});
}

TEST_CASE("token models are recorded at the last position of each row") {
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
  REQUIRE(probe.base.shape == std::vector<std::int64_t>{2, 2});
  REQUIRE(probe.base.to_f32() == std::vector<float>{4, 5, 10, 11});
  REQUIRE(probe.adapted.to_f32() == std::vector<float>{104, 105, 110, 111});
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
