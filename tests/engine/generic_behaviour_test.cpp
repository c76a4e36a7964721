#include "golden_case.h"
//
#include "engine/generic/generic_model.h"
#include "engine/train_fixtures.h"

namespace lora {
namespace {

using testing::GoldenCase;
using testing::largest_difference;
using testing::logits_of;
using testing::require_error;

std::int64_t best_token(const at::Tensor& logits) {
  return logits[0][logits.size(1) - 1].argmax().item<std::int64_t>();
}

TEST_CASE("gpt2 generates the tokens that its own logits rank first", "[engine]") {
  const GoldenCase golden("gpt2_dora");
  const auto model = golden.adapted(false);
  std::vector<std::int64_t> ids{7, 3, 20};
  std::vector<std::int64_t> expected;
  for (int i = 0; i < 5; ++i) {
    const auto length = static_cast<std::int64_t>(ids.size());
    expected.push_back(
        best_token(logits_of(*model, {{"input_ids", Tensor::from_i64({1, length}, ids)}})));
    ids.push_back(expected.back());
  }
  GenerateOptions options;
  options.max_new_tokens = 5;
  CHECK(model->generate({7, 3, 20}, options) == expected);
  options.stop_tokens = {expected[0]};
  CHECK(model->generate({7, 3, 20}, options).size() == 1);
  options.max_new_tokens = 30;
  require_error(ErrorKind::incompatible, "33 positions", [&] {
    model->generate({7, 3, 20}, options);
  });
}

TEST_CASE("a model that predicts no next token does not generate", "[engine]") {
  for (const std::string name : {"bert_language", "bert_classifier", "gpt2_classifier"}) {
    INFO(name);
    const auto model = GoldenCase(name).bare();
    require_error(ErrorKind::unsupported, "predicts no next token", [&] {
      model->generate({5, 6}, {});
    });
  }
}

TEST_CASE("a classifier of gpt2 without a padding token takes one row at a time", "[engine]") {
  GoldenCase golden("gpt2_classifier");
  golden.base.config->gpt2->pad_token_id.reset();
  const auto model = golden.bare();
  const std::vector<std::int64_t> two{5, 6, 7, 8};
  CHECK(logits_of(*model, {{"input_ids", Tensor::from_i64({1, 4}, two)}}).size(1) == 3);
  require_error(ErrorKind::incompatible, "no pad_token_id", [&] {
    model->forward({{"input_ids", Tensor::from_i64({2, 2}, two)}});
  });
}

TEST_CASE("an adapter's classifier makes a classifier of a language model", "[engine]") {
  GoldenCase golden("bert_classifier");
  golden.base.config->bert->head = {};
  golden.base.tensors.erase("classifier.weight");
  golden.base.tensors.erase("classifier.bias");
  CHECK(largest_difference(logits_of(*golden.adapted(false), golden.masked_inputs()),
                           golden.value("adapted_logits")) < 2e-5);
}

TEST_CASE("a gpt2 checkpoint of the bare model is read under its own names", "[engine]") {
  GoldenCase golden("gpt2_plain");
  TensorMap bare;
  for (const auto& [name, tensor] : golden.base.tensors)
    bare[name.substr(name.find('.') + 1)] = tensor;
  golden.base.tensors = bare;
  golden.base.aliases = {{"lm_head.weight", "wte.weight"}};
  CHECK(largest_difference(logits_of(*golden.adapted(false), golden.masked_inputs()),
                           golden.value("adapted_logits")) < 2e-5);
}

TEST_CASE("a parameter that neither base nor adapter has is named", "[engine]") {
  GoldenCase golden("bert_classifier");
  golden.base.tensors.erase("classifier.bias");
  golden.adapted(false);
  golden.base.tensors.erase("bert.embeddings.LayerNorm.bias");
  require_error(ErrorKind::malformed, "bert.embeddings.LayerNorm.bias is missing",
                [&] { golden.adapted(false); });
}

TEST_CASE("the base's dropout acts in training only, as a function of the step", "[engine]") {
  for (const std::string name : {"gpt2_plain", "bert_classifier"}) {
    INFO(name);
    GoldenCase golden(name);
    const double calm = golden.adapted(true)->loss(golden.batch()).sum;
    if (golden.base.config->gpt2) {
      golden.base.config->gpt2->residual_dropout = 0.3;
      golden.base.config->gpt2->attention_dropout = 0.3;
    } else {
      golden.base.config->bert->hidden_dropout = 0.3;
      golden.base.config->bert->attention_dropout = 0.3;
    }
    const auto model = golden.adapted(true);
    const auto loss_at = [&](std::int64_t step) {
      return model->loss_and_gradients(golden.batch(), 0.1, {1, step, 0}).sum;
    };
    CHECK(model->loss(golden.batch()).sum == calm);
    const double first = loss_at(1);
    CHECK(first != calm);
    CHECK(loss_at(1) == first);
    CHECK(loss_at(2) != first);
    model->set_layer_checkpointing(true);
    CHECK(std::abs(loss_at(1) - first) < 1e-6 * first);
  }
}

TEST_CASE("updates of several adapters add up", "[engine]") {
  const GoldenCase golden("gpt2_classifier");
  Adapter doubled = golden.adapter;
  doubled.replacements.clear();
  ModelOptions options = golden.options(false);
  options.adapters = {&golden.adapter, &doubled};
  const at::Tensor both = logits_of(*engine::make_model(options), golden.masked_inputs());
  Adapter strong = golden.adapter;
  for (LoraModule& module : strong.modules) module.scaling *= 2;
  options.adapters = {&strong};
  const at::Tensor once = logits_of(*engine::make_model(options), golden.masked_inputs());
  CHECK(largest_difference(both, once) < 1e-5);
  CHECK(largest_difference(both, golden.value("adapted_logits")) > 1e-3);
}

TEST_CASE("a frozen twin of a saved module is no parameter to train", "[engine]") {
  const GoldenCase golden("gpt2_tokens");
  REQUIRE(
      golden.adapter.tensors.contains("base_model.model.transformer.ln_f.original_module.bias"));
  const auto model = golden.adapted(true);
  for (const auto& parameter : model->trainable().layout)
    CHECK(parameter.peft_key.find("original_module") == std::string::npos);
  std::int64_t trained = 0;
  for (const ParameterInfo& parameter : model->parameters()) trained += parameter.is_trainable;
  CHECK(trained == static_cast<std::int64_t>(model->trainable().layout.size()));
}

TEST_CASE("a saved embedding trains only while it is the base's own", "[engine]") {
  GoldenCase golden("llama_dora");
  const std::string key = "base_model.model.lm_head.base_layer.weight";
  REQUIRE(golden.adapter.tensors.contains(key));
  for (const auto& parameter : golden.adapted(true)->trainable().layout)
    CHECK(parameter.peft_key != key);
  const Tensor& own = golden.adapter.tensors.at(key);
  golden.adapter.tensors[key] = testing::random_tensor(own.shape, 9);
  require_error(ErrorKind::unsupported, "values of its own", [&] { golden.adapted(true); });
}

TEST_CASE("trainable tokens must fit their table and have one value each", "[engine]") {
  const GoldenCase golden("llama_tokens");
  const auto refuses = [&](const char* part, auto change) {
    Adapter adapter = golden.adapter;
    change(adapter.tokens.at(0));
    ModelOptions options = golden.options(false);
    options.adapters = {&adapter};
    require_error(ErrorKind::incompatible, part, [&] { engine::make_model(options); });
  };
  // Token 48 would be the next of a grown vocabulary; 49 leaves a gap.
  refuses("token 49", [](TokenRows& tokens) { tokens.indices[0] = 49; });
  refuses("token 11 of model.embed_tokens has two values",
          [](TokenRows& tokens) { tokens.indices[0] = 11; });
  refuses("expected [3, 16]", [](TokenRows& tokens) { tokens.indices.push_back(1); });
  refuses("no table of the base", [](TokenRows& tokens) { tokens.module_path = "model.norm"; });
  Adapter other = golden.adapter;
  ModelOptions options = golden.options(false);
  options.adapters.push_back(&other);
  require_error(ErrorKind::incompatible, "has two values", [&] { engine::make_model(options); });
}

TEST_CASE("kinds without a layer here and other arithmetic are refused by name", "[engine]") {
  const auto refuses = [&](const char* part, auto change) {
    GoldenCase golden("gpt2_plain");
    change(golden.adapter);
    require_error(ErrorKind::unsupported, part, [&] { golden.adapted(false); });
  };
  refuses("(convolution)", [](Adapter& a) { a.modules[0].kind = LayerKind::convolution; });
  refuses("(expert parameter)", [](Adapter& a) { a.modules[0].kind = LayerKind::parameter; });
  refuses("(fused attention)", [](Adapter& a) { a.modules[0].kind = LayerKind::attention; });
  refuses("(KaSA)", [](Adapter& a) { a.modules[0].diagonal = a.modules[0].a; });
  refuses("(block-diagonal)", [](Adapter& a) { a.modules[0].blocks_b = 2; });
  refuses("(QALoRA)", [](Adapter& a) { a.modules[0].pool = 4; });
  refuses("layer_replication", [](Adapter& a) {
    a.config.other["layer_replication"] = JsonArray{JsonArray{0, 1}};
  });
  refuses("corda", [](Adapter& a) { a.config.init_lora_weights = Json("corda"); });
}

TEST_CASE("an mlp takes plain LoRA only", "[engine]") {
  GoldenCase golden("mlp_none");
  LoraModule& module = golden.adapter.modules[0];
  module.magnitude = testing::random_tensor({module.b.shape[0]}, 3);
  require_error(ErrorKind::unsupported, module.module_path + " (DoRA)",
                [&] { golden.adapted(false); });
}

}  // namespace
}  // namespace lora
