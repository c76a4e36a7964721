#include "golden_case.h"
//
#include "engine/generic/generic_model.h"

namespace lora {
namespace {

using engine::LossSettings;
using testing::GoldenCase;
using testing::relative_distance;

struct Computed {
  double trained = 0, evaluated = 0;
  at::Tensor gradients;
};

Computed compute(engine::Model& model, const engine::Batch& batch, const LossSettings& settings) {
  model.trainable().gradients.zero_();
  Computed result;
  result.trained = model.loss_and_gradients(batch, 0.1, {0, 0, 0, settings}).sum;
  result.evaluated = model.loss(batch).sum;
  result.gradients = model.trainable().gradients.clone();
  return result;
}

// From the model's own logits: the loss that transformers' LabelSmoother has, and the z-loss.
double expected_loss(engine::Model& model, const engine::Batch& batch,
                     const LossSettings& settings) {
  const auto count = batch.rows * batch.columns;
  const TensorMap inputs{
      {"input_ids", Tensor::from_i64({batch.rows, batch.columns}, batch.input_ids)}};
  const at::Tensor logits = testing::logits_of(model, inputs).to(at::kDouble);
  const at::Tensor scores = logits.view({count, -1});
  const at::Tensor log_p = at::log_softmax(scores, -1);
  const at::Tensor log_sum = at::logsumexp(scores, {-1});
  double total = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t t = i % batch.columns + 1;
    if (t >= batch.lengths[static_cast<std::size_t>(i / batch.columns)]) continue;
    const std::int64_t label = batch.labels[static_cast<std::size_t>(i + 1)];
    if (label == engine::kIgnoredLabel) continue;
    total -= (1 - settings.label_smoothing) * log_p[i][label].item<double>() +
             settings.label_smoothing * log_p[i].mean().item<double>();
    total += settings.z_loss * std::pow(log_sum[i].item<double>(), 2);
  }
  return total;
}

TEST_CASE("label smoothing and z-loss are in the loss of training, not of evaluation",
          "[engine][loss]") {
  for (const std::string name : {"gpt2_plain", "llama_plain", "gpt_neox_plain"}) {
    const GoldenCase golden(name);
    const auto model = golden.adapted(true);
    const engine::Batch batch = golden.batch();
    const double plain = compute(*model, batch, {}).trained;
    for (const LossSettings settings : {LossSettings{0.1, 0}, LossSettings{0.2, 0.03}}) {
      INFO(name << " " << settings.label_smoothing << " " << settings.z_loss);
      const Computed found = compute(*model, batch, settings);
      const double expected = expected_loss(*model, batch, settings);
      CHECK(std::abs(found.trained - expected) < 1e-5 * expected);
      CHECK(std::abs(found.evaluated - plain) < 1e-6 * plain);
      CHECK(std::abs(found.trained - plain) > 1e-3 * plain);
    }
  }
}

TEST_CASE("the gradient written out by hand is the differentiated one with smoothing and z-loss",
          "[engine][loss]") {
  for (const std::string name : {"llama_plain", "decoder_gemma2"}) {
    INFO(name);
    const GoldenCase golden(name);
    const ModelOptions options = golden.options(true);
    const auto fast = engine::make_model(options);
    const auto generic = engine::make_generic(options, engine::make_decoder_network(options));
    const LossSettings settings{0.15, 0.05};
    const Computed by_hand = compute(*fast, golden.batch(), settings);
    const Computed differentiated = compute(*generic, golden.batch(), settings);
    CHECK(std::abs(by_hand.trained - differentiated.trained) < 1e-5 * differentiated.trained);
    CHECK(relative_distance(by_hand.gradients, differentiated.gradients) < 1e-5);
    CHECK(relative_distance(compute(*fast, golden.batch(), {}).gradients, by_hand.gradients) >
          1e-2);
  }
}

TEST_CASE("a classifier of sequences smooths its classes", "[engine][loss]") {
  const GoldenCase golden("gpt2_classifier");
  const auto model = golden.adapted(true);
  const at::Tensor logits = testing::logits_of(*model, golden.masked_inputs()).to(at::kDouble);
  const double expected =
      at::cross_entropy_loss(logits, golden.value("y"), {}, at::Reduction::Sum, -100, 0.1)
          .item<double>();
  const double found = compute(*model, golden.batch(), {0.1, 0}).trained;
  CHECK(std::abs(found - expected) < 1e-5 * expected);
}

}  // namespace
}  // namespace lora
