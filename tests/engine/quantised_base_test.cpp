#include "golden_case.h"
//
#include "engine/quantised_base.h"
#include "engine/quantised_matrix.h"
#include "engine/train/adapter_init.h"
#include "engine/train/optimizer.h"
#include "lora/base/error.h"

namespace lora {
namespace {

using testing::GoldenCase;
using testing::largest_difference;
using testing::logits_of;

const std::vector<std::string> kCases{"llama_plain",  "llama_saved",  "llama_dora",
                                      "gpt2_plain",   "gpt2_dora",    "decoder_mixtral",
                                      "decoder_phi3", "bert_language"};

std::unique_ptr<engine::Model> quantised(const GoldenCase& golden, BaseDtype dtype,
                                         bool trainable) {
  ModelOptions options = golden.options(trainable);
  options.base_dtype = dtype;
  return engine::make_model(options);
}

std::vector<double> losses_of(const GoldenCase& golden, BaseDtype dtype, bool checkpointing,
                              std::size_t steps) {
  const auto model = quantised(golden, dtype, true);
  model->set_layer_checkpointing(checkpointing);
  engine::FlatParameters& flat = model->trainable();
  engine::AdamW optimizer(flat.values, {});
  const engine::Batch batch = golden.batch();
  const double count = static_cast<double>(model->loss(batch).count);
  std::vector<double> losses;
  for (std::size_t i = 0; i < steps; ++i) {
    flat.gradients.zero_();
    losses.push_back(model->loss_and_gradients(batch, 1 / count, {}).sum / count);
    optimizer.update(flat.values, flat.gradients, 1e-2, static_cast<std::int64_t>(i) + 1);
  }
  return losses;
}

}  // namespace

TEST_CASE("training on a quantised base has PEFT's losses on its widened weights", "[quantised]") {
  const TensorMap golden = read_safetensors(std::filesystem::path(LORA_SOURCE_DIR) /
                                            "tests/golden/engine/quantised/losses.safetensors")
                               .tensors;
  for (const std::string& name : kCases)
    for (const BaseDtype dtype : {BaseDtype::nf4, BaseDtype::int8})
      for (const bool checkpointing : {false, true}) {
        INFO(name << " " << to_string(dtype) << (checkpointing ? ", checkpointing" : ""));
        const at::Tensor expected =
            engine::view_of(golden.at(name + "." + std::string(to_string(dtype))));
        const GoldenCase base(name);
        const std::vector<double> losses =
            losses_of(base, dtype, checkpointing, static_cast<std::size_t>(expected.numel()));
        for (std::size_t i = 0; i < losses.size(); ++i) {
          const double wanted = expected[static_cast<std::int64_t>(i)].item<double>();
          CHECK(std::abs(losses[i] - wanted) < 1e-5 * wanted);
        }
      }
}

TEST_CASE("a quantised base generates what its forward pass says, also one row at a time",
          "[quantised]") {
  const GoldenCase golden("llama_plain");
  const auto model = quantised(golden, BaseDtype::nf4, false);
  const at::Tensor native = logits_of(*golden.adapted(false), golden.masked_inputs());
  CHECK(largest_difference(logits_of(*model, golden.masked_inputs()), native) > 1e-2);
  std::vector<std::int64_t> ids = golden.integers("prompt");
  GenerateOptions options;
  options.max_new_tokens = 12;
  for (const std::int64_t token : model->generate(golden.integers("prompt"), options)) {
    const Tensor row = Tensor::from_i64({1, static_cast<std::int64_t>(ids.size())}, ids);
    const at::Tensor logits = logits_of(*model, {{"input_ids", row}});
    CHECK(logits[0][-1].argmax().item<std::int64_t>() == token);
    ids.push_back(token);
  }
}

TEST_CASE("only the frozen matrices inside layers are quantised", "[quantised]") {
  const GoldenCase golden("llama_saved");
  for (const ParameterInfo& parameter : quantised(golden, BaseDtype::nf4, true)->parameters()) {
    INFO(parameter.name);
    const bool is_matrix = parameter.name.ends_with("_proj.weight") && !parameter.is_trainable &&
                           parameter.name.find("base_model") == std::string::npos;
    // The adapter saves gate_proj whole.
    const bool is_saved = parameter.name.find("gate_proj") != std::string::npos;
    CHECK((parameter.dtype == DType::u8) == (is_matrix && !is_saved));
  }
  CHECK(engine::is_layer_matrix("model.layers.3.mlp.up_proj.weight"));
  CHECK(engine::is_layer_matrix("h.0.attn.c_attn.weight"));
  CHECK_FALSE(engine::is_layer_matrix("model.embed_tokens.weight"));
  CHECK_FALSE(engine::is_layer_matrix("lm_head.weight"));
  CHECK_FALSE(engine::is_layer_matrix("bert.embeddings.word2vec.weight"));
}

TEST_CASE("quantised matrices take the memory that is promised", "[quantised]") {
  Checkpoint none;
  const at::Tensor values = at::randn({576, 1536}, at::kFloat);
  const Tensor tensor = engine::to_lora(values);
  const double half = 2.0 * static_cast<double>(values.numel());
  const engine::QuantisedMatrix nf4(none, "w", tensor, BaseDtype::nf4, false);
  const engine::QuantisedMatrix int8(none, "w", tensor, BaseDtype::int8, false);
  CHECK(static_cast<double>(nf4.bytes()) <= 0.29 * half);
  CHECK(static_cast<double>(int8.bytes()) <= 0.53 * half);
  // Rounding to the nearest of sixteen quantiles, or of 255 steps.
  CHECK(testing::relative_distance(nf4.widened(), values) < 0.1);
  CHECK(testing::relative_distance(int8.widened(), values) < 0.01);
  CHECK(nf4.narrow(100, 7).widened().equal(nf4.widened().narrow(0, 100, 7)));
  const engine::QuantisedMatrix turned(none, "w", engine::to_lora(values.t().contiguous()),
                                       BaseDtype::nf4, true);
  CHECK(turned.widened().equal(nf4.widened()));
}

TEST_CASE("products with a quantised matrix are those with its widened values", "[quantised]") {
  Checkpoint none;
  const at::Tensor values = at::randn({700, 1531}, at::kFloat);
  engine::Workspace workspace;
  for (const BaseDtype dtype : {BaseDtype::nf4, BaseDtype::int8}) {
    const engine::QuantisedMatrix matrix(none, "w", engine::to_lora(values), dtype, false);
    const at::Tensor wide = matrix.widened();
    for (const std::int64_t rows : {1, 3, 40}) {
      const at::Tensor x = at::randn({rows, 1531}, at::kFloat);
      at::Tensor y = at::empty({rows, 700}, at::kFloat);
      engine::multiply(x, matrix, y, workspace);
      CHECK(testing::relative_distance(y, at::mm(x, wide.t())) < 1e-5);
      at::Tensor dx = at::ones({rows, 1531}, at::kFloat);
      engine::multiply_transposed(y, matrix, dx, true, workspace);
      CHECK(testing::relative_distance(dx, at::mm(y, wide).add(1)) < 1e-5);
    }
  }
}

TEST_CASE("what cannot be quantised is refused with a reason", "[quantised]") {
  const auto message = [](const auto& action) -> std::string {
    try {
      action();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  AdapterConfig config;
  config.init_lora_weights = Json("pissa");
  CHECK_THAT(message([&] { engine::refuse_changed_base(config, BaseDtype::nf4); }),
             Catch::Contains("\"pissa\" takes its first factors out of the base, which is kept as "
                             "nf4"));
  CHECK_NOTHROW(engine::refuse_changed_base(config, BaseDtype::native));
  config.init_lora_weights = Json("gaussian");
  CHECK_NOTHROW(engine::refuse_changed_base(config, BaseDtype::nf4));

  const GoldenCase mlp("mlp_none");
  ModelOptions options;
  options.base = &mlp.base;
  options.base_dtype = BaseDtype::int8;
  CHECK_THAT(message([&] { engine::make_model(options); }),
             Catch::Contains("it is an mlp, expected a transformer"));

  GoldenCase broken("llama_plain");
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  at::Tensor values = engine::view_of(broken.base.tensors.at(name)).clone();
  values[3][4] = std::nan("");
  broken.base.tensors[name] = engine::to_lora(values);
  const std::string text = message([&] { quantised(broken, BaseDtype::nf4, false); });
  CHECK_THAT(text, Catch::Contains(name) && Catch::Contains("not finite"));
}

}  // namespace lora
