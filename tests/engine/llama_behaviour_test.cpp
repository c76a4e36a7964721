#include "golden_case.h"
//
#include "engine/linear.h"
#include "engine/llama/llama_model.h"

namespace lora {
namespace {

using testing::GoldenCase;
using testing::require_error;

TensorMap ids(std::vector<std::int64_t> shape, const std::vector<std::int64_t>& values) {
  return {{"input_ids", Tensor::from_i64(std::move(shape), values)}};
}

TEST_CASE("the gradient under dropout is that of the masked function", "[engine]") {
  GoldenCase golden("llama_plain");
  golden.adapter.config.dropout = 0.4;
  const auto model = golden.adapted(true);
  const engine::Batch batch = golden.batch();
  const engine::StepContext step{3, 5, 1};
  engine::FlatParameters& flat = model->trainable();
  model->loss_and_gradients(batch, 1, step);
  const at::Tensor gradient = flat.gradients.clone();
  const at::Tensor start = flat.values.clone();
  const at::Tensor direction = gradient / gradient.norm();
  const auto loss_at = [&](double distance) {
    flat.values.copy_(start + direction * distance);
    return model->loss_and_gradients(batch, 1, step).sum;
  };
  const double slope = (loss_at(1e-2) - loss_at(-1e-2)) / 2e-2;
  CHECK(slope == Approx(gradient.norm().item<double>()).epsilon(5e-3));

  flat.values.copy_(start);
  const double same = model->loss_and_gradients(batch, 1, step).sum;
  CHECK(model->loss_and_gradients(batch, 1, step).sum == same);
  CHECK(model->loss_and_gradients(batch, 1, {3, 6, 1}).sum != same);
  CHECK(model->loss_and_gradients(batch, 1, {3, 5, 2}).sum != same);
  CHECK(model->loss_and_gradients(batch, 1, {4, 5, 1}).sum != same);
}

TEST_CASE("two adapters add their updates", "[engine]") {
  const GoldenCase golden("llama_plain");
  Adapter doubled = golden.adapter;
  for (LoraModule& module : doubled.modules) module.scaling *= 2;
  ModelOptions twice, once;
  twice.base = once.base = &golden.base;
  twice.adapters = {&golden.adapter, &golden.adapter};
  once.adapters = {&doubled};
  const TensorMap inputs{{"input_ids", golden.expected.at("input_ids")}};
  const TensorMap a = engine::make_model(twice)->forward(inputs);
  const TensorMap b = engine::make_model(once)->forward(inputs);
  CHECK(testing::largest_difference(engine::view_of(a.at("logits")),
                                    engine::view_of(b.at("logits"))) < 1e-4);
}

// With how far PEFT's own gradients in bf16 are from its f32 ones (adapters f32 in both).
const std::vector<std::pair<std::string, double>> kPeftInBf16{
    {"llama_scaled", 0.061},       {"decoder_qwen3", 0.0134},   {"decoder_gemma", 0.425},
    {"decoder_phi3_long", 0.0278}, {"decoder_granite", 0.0155}, {"decoder_olmo2", 0.0352},
    {"decoder_mistral", 0.0952}};

TEST_CASE("computing in bf16 is about as close to f32 as PEFT in bf16 is", "[engine]") {
  for (const auto& [name, distance] : kPeftInBf16) {
    INFO(name);
    const GoldenCase golden(name);
    REQUIRE(engine::has_fast_step(*golden.base.config->decoder));
    const auto wide = golden.adapted(true, Compute::f32);
    const auto narrow = golden.adapted(true, Compute::bf16);
    const engine::Batch batch = golden.batch();
    const engine::LossSum a = wide->loss_and_gradients(batch, 1, {});
    const engine::LossSum b = narrow->loss_and_gradients(batch, 1, {});
    CHECK(a.sum != b.sum);
    CHECK(std::abs(a.sum - b.sum) < 2e-2 * a.sum);
    CHECK(testing::relative_distance(narrow->trainable().gradients, wide->trainable().gradients) <
          1.5 * distance);
    for (const ParameterInfo& parameter : narrow->parameters())
      CHECK((parameter.dtype == DType::bf16) ==
            (!parameter.is_trainable && parameter.shape.size() == 2));
  }
}

TEST_CASE("an adapter that does not fit lists every offender", "[engine]") {
  GoldenCase golden("llama_plain");
  golden.adapter.modules[0].module_path = "model.layers.9.mlp.up_proj";
  golden.adapter.modules[1].a.shape = {4, 31};
  golden.adapter.replacements["model.nothing.weight"] = Tensor::from_f32({1}, std::vector{1.0F});
  require_error(ErrorKind::incompatible, "3 problems", [&] { golden.adapted(false); });
  require_error(ErrorKind::incompatible, "model.layers.9.mlp.up_proj does not exist",
                [&] { golden.adapted(false); });
  require_error(ErrorKind::incompatible, "expected [4, 32]", [&] { golden.adapted(false); });
  require_error(ErrorKind::incompatible, "model.nothing.weight does not exist",
                [&] { golden.adapted(false); });
}

TEST_CASE("a magnitude that is no vector of the layer's outputs does not fit", "[engine]") {
  GoldenCase golden("llama_plain");
  golden.adapter.modules[0].magnitude = golden.adapter.modules[0].a;
  require_error(ErrorKind::incompatible, "the magnitude of model.layers.0.mlp.down_proj",
                [&] { golden.adapted(false); });
}

TEST_CASE("experts, dropout of the base and other gates are left to the generic back end",
          "[engine]") {
  const DecoderConfig plain = *GoldenCase("llama_plain").base.config->decoder;
  CHECK(engine::has_fast_step(plain));
  const auto changed = [&](const auto& change) {
    DecoderConfig config = plain;
    change(config);
    return engine::has_fast_step(config);
  };
  CHECK_FALSE(changed([](DecoderConfig& config) { config.experts.emplace(); }));
  CHECK_FALSE(changed([](DecoderConfig& config) { config.attention_dropout = 0.1; }));
  CHECK_FALSE(changed([](DecoderConfig& config) { config.residual_dropout = 0.1; }));
  CHECK_FALSE(changed([](DecoderConfig& config) { config.activation = "relu"; }));
  CHECK_FALSE(changed([](DecoderConfig& config) {
    config.has_fused_projections = true;
    config.head_norm = DecoderConfig::HeadNorm::each;
  }));
}

TEST_CASE("an initialisation that changed the base by data is refused by name", "[engine]") {
  GoldenCase golden("llama_plain");
  golden.adapter.config.init_lora_weights = "corda";
  require_error(ErrorKind::unsupported, "corda", [&] { golden.adapted(false); });
}

TEST_CASE("a base that lacks parameters of its configuration is malformed", "[engine]") {
  GoldenCase golden("llama_plain");
  golden.base.tensors.erase("model.norm.weight");
  golden.base.tensors.at("model.layers.0.mlp.up_proj.weight").shape = {32, 40};
  require_error(ErrorKind::malformed, "model.norm.weight is missing", [&] { golden.bare(); });
  require_error(ErrorKind::malformed, "has shape [32, 40], expected [40, 32]",
                [&] { golden.bare(); });
}

TEST_CASE("wrong inputs are refused with what was expected", "[engine]") {
  const GoldenCase golden("llama_plain");
  const auto model = golden.bare();
  const auto refuse = [&](std::string_view part, const TensorMap& inputs) {
    require_error(ErrorKind::incompatible, part, [&] { model->forward(inputs); });
  };
  refuse("token id 64", ids({1, 2}, {3, 64}));
  refuse("token id -1", ids({1, 2}, {-1, 3}));
  refuse("expected I64 [batch, seq]", ids({2}, {3, 4}));
  refuse("no input_ids", {});
  refuse("257 positions", ids({1, 257}, std::vector<std::int64_t>(257, 3)));
  TensorMap inputs = ids({1, 2}, {3, 4});
  inputs["attention_mask"] = Tensor::from_i64({1, 3}, std::vector<std::int64_t>{1, 1, 1});
  refuse("attention_mask has shape [1, 3]", inputs);
  inputs.erase("attention_mask");
  inputs["x"] = inputs.at("input_ids");
  refuse("found the input x", inputs);
}

TEST_CASE("generation stops, samples by seed, and respects positions and cancellation",
          "[engine]") {
  const GoldenCase golden("llama_plain");
  const auto model = golden.bare();
  const std::vector<std::int64_t> prompt = golden.integers("prompt");
  const std::vector<std::int64_t> greedy = golden.integers("greedy");
  GenerateOptions options;
  options.max_new_tokens = 12;
  options.stop_tokens = {greedy[0]};
  CHECK(model->generate(prompt, options) == std::vector<std::int64_t>{greedy[0]});

  options.stop_tokens.clear();
  std::int64_t seen = 0;
  options.on_token = [&](std::int64_t) { return ++seen < 3; };
  CHECK(model->generate(prompt, options) ==
        std::vector<std::int64_t>(greedy.begin(), greedy.begin() + 3));
  options.on_token = nullptr;

  options.temperature = 5;
  options.seed = 1;
  const std::vector<std::int64_t> sampled = model->generate(prompt, options);
  CHECK(model->generate(prompt, options) == sampled);
  options.seed = 2;
  CHECK(model->generate(prompt, options) != sampled);

  options.max_new_tokens = 248;
  require_error(ErrorKind::incompatible, "257 positions",
                [&] { model->generate(prompt, options); });
  options.max_new_tokens = 12;
  const CancelFlag cancel{true};
  options.cancel = &cancel;
  require_error(ErrorKind::interrupted, "interrupted", [&] { model->generate(prompt, options); });
}

TEST_CASE("parameters are listed by base_name and peft_key, a tied head once", "[engine]") {
  const GoldenCase golden("llama_plain");
  std::size_t frozen = 0;
  std::size_t trainable = 0;
  for (const ParameterInfo& parameter : golden.adapted(true)->parameters()) {
    CHECK(parameter.name != "lm_head.weight");
    (parameter.is_trainable ? trainable : frozen) += 1;
    CHECK(parameter.is_trainable == parameter.name.starts_with("base_model.model."));
  }
  CHECK(frozen == golden.base.tensors.size());
  CHECK(trainable == golden.adapter.tensors.size());
}

}  // namespace
}  // namespace lora
