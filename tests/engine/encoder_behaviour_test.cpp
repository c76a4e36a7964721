#include "golden_case.h"
//
#include "engine/generic/generic_model.h"
#include "support/testing.h"

namespace lora {
namespace {

using testing::GoldenCase;
using testing::largest_difference;
using testing::logits_of;
using testing::require_error;

TEST_CASE("positions of roberta are counted from the first token, whatever stands before",
          "[engine]") {
  const GoldenCase golden("xlm_roberta_tokens");
  REQUIRE(golden.base.config->bert->pad_token_id == 0);
  const auto model = golden.bare();
  const std::vector<std::int64_t> row{9, 8, 7};
  const std::vector<std::int64_t> padded{0, 0, 9, 8, 7};
  const std::vector<std::int64_t> mask{0, 0, 1, 1, 1};
  const at::Tensor alone = logits_of(*model, {{"input_ids", Tensor::from_i64({1, 3}, row)}});
  const at::Tensor behind = logits_of(*model, {{"input_ids", Tensor::from_i64({1, 5}, padded)},
                                               {"attention_mask", Tensor::from_i64({1, 5}, mask)}});
  CHECK(largest_difference(behind.narrow(1, 2, 3), alone) < 1e-6);
}

TEST_CASE("roberta takes as many tokens as there are positions behind padding's", "[engine]") {
  const GoldenCase golden("roberta_classifier");
  const auto model = golden.bare();
  const auto run = [&](std::int64_t count) {
    const std::vector<std::int64_t> ids(static_cast<std::size_t>(count), 7);
    return logits_of(*model, {{"input_ids", Tensor::from_i64({1, count}, ids)}});
  };
  CHECK(run(26).size(1) == 3);
  require_error(ErrorKind::incompatible, "27 positions, expected at most its 26", [&] { run(27); });
}

TEST_CASE("an adapter for tokens makes a token classifier of a language model", "[engine]") {
  for (const std::string name : {"bert_token_classifier", "xlm_roberta_tokens"}) {
    INFO(name);
    GoldenCase golden(name);
    golden.base.config->bert->head = {};
    golden.base.tensors.erase("classifier.weight");
    golden.base.tensors.erase("classifier.bias");
    CHECK(largest_difference(logits_of(*golden.adapted(false), golden.masked_inputs()),
                             golden.value("adapted_logits")) < 2e-5);
  }
}

TEST_CASE("rows of a training batch lose nothing to the padding of the batch", "[engine]") {
  for (const std::string name : {"roberta_classifier", "gpt_neox_classifier", "gpt_neox_tokens",
                                 "bert_token_classifier", "distilbert_language"}) {
    INFO(name);
    const GoldenCase golden(name);
    const auto model = golden.bare();
    const bool is_of_sequence =
        golden.base.config->token_model()->head.kind == HeadConfig::Kind::sequence_classification;
    engine::Batch both;
    both.rows = 2;
    both.columns = 5;
    both.is_shifted = false;
    both.lengths = {3, 5};
    both.input_ids = {11, 12, 13, 0, 0, 14, 15, 16, 17, 18};
    both.labels = {0, 1, 2, -100, -100, 2, 1, 0, -100, 1};
    const std::vector<std::int64_t> classes{2, 1};
    if (is_of_sequence) both.y = Tensor::from_i64({2}, classes);
    double apart = 0;
    for (std::int64_t row = 0; row < 2; ++row) {
      engine::Batch one;
      one.rows = 1;
      one.columns = both.lengths[static_cast<std::size_t>(row)];
      one.is_shifted = false;
      one.lengths = {one.columns};
      const auto from = static_cast<std::ptrdiff_t>(row * both.columns);
      one.input_ids.assign(both.input_ids.begin() + from,
                           both.input_ids.begin() + from + one.columns);
      one.labels.assign(both.labels.begin() + from, both.labels.begin() + from + one.columns);
      if (is_of_sequence)
        one.y = Tensor::from_i64({1}, std::span(classes).subspan(static_cast<std::size_t>(row), 1));
      apart += model->loss(one).sum;
    }
    CHECK(std::abs(model->loss(both).sum - apart) < 1e-5 * apart);
  }
}

TEST_CASE("a label that is no class is refused", "[engine]") {
  const GoldenCase golden("bert_token_classifier");
  engine::Batch batch = golden.batch();
  batch.labels[0] = 4;
  require_error(ErrorKind::incompatible, "label 4, expected 0 to 3",
                [&] { golden.bare()->loss(batch); });
}

TEST_CASE("the dropout of a token classifier acts in training", "[engine]") {
  GoldenCase golden("distilbert_tokens");
  golden.base.config->bert->classifier_dropout = 0.4;
  const auto model = golden.adapted(true);
  const double calm = model->loss(golden.batch()).sum;
  CHECK(model->loss_and_gradients(golden.batch(), 0.1, {1, 1, 0}).sum != calm);
  CHECK(model->loss(golden.batch()).sum == calm);
}

TEST_CASE("the head of gpt_neox has an older name in files, and both count as one", "[engine]") {
  GoldenCase golden("gpt_neox_plain");
  REQUIRE(golden.base.tensors.contains("embed_out.weight"));
  CHECK(golden.base.aliases.at("lm_head.weight") == "embed_out.weight");
  std::size_t heads = 0;
  for (const ParameterInfo& parameter : golden.bare()->parameters())
    heads += parameter.name == "lm_head.weight";
  CHECK(heads == 1);
  auto node = golden.base.tensors.extract("embed_out.weight");
  node.key() = "lm_head.weight";
  golden.base.tensors.insert(std::move(node));
  golden.base.aliases.clear();
  CHECK(largest_difference(logits_of(*golden.bare(), golden.masked_inputs()),
                           golden.value("logits")) < 2e-5);
}

}  // namespace
}  // namespace lora
