#include "golden_case.h"

namespace lora {
namespace {

using testing::GoldenCase;
using testing::largest_difference;
using testing::logits_of;

constexpr double kLogitTolerance = 2e-5;
const std::vector<std::string> kCases{"llama_plain", "llama_scaled", "llama_saved", "llama_upper"};

TEST_CASE("llama logits equal those of transformers", "[engine]") {
  for (const std::string& name : kCases) {
    INFO(name);
    const GoldenCase golden(name);
    const auto model = golden.bare();
    const TensorMap inputs{{"input_ids", golden.expected.at("input_ids")}};
    CHECK(largest_difference(logits_of(*model, inputs), golden.value("logits")) < kLogitTolerance);
    TensorMap masked = inputs;
    masked["attention_mask"] = golden.expected.at("attention_mask");
    CHECK(largest_difference(logits_of(*model, masked), golden.value("masked_logits")) <
          kLogitTolerance);
  }
}

TEST_CASE("greedy generation gives the tokens of transformers", "[engine]") {
  for (const std::string& name : kCases) {
    INFO(name);
    const GoldenCase golden(name);
    const std::vector<std::int64_t> expected = golden.integers("greedy");
    GenerateOptions options;
    options.max_new_tokens = static_cast<std::int64_t>(expected.size());
    CHECK(golden.bare()->generate(golden.integers("prompt"), options) == expected);
  }
}

TEST_CASE("an adapted llama has PEFT's logits, and the bare base's with adapters off", "[engine]") {
  for (const std::string& name : kCases) {
    INFO(name);
    const GoldenCase golden(name);
    const TensorMap inputs{{"input_ids", golden.expected.at("input_ids")},
                           {"attention_mask", golden.expected.at("attention_mask")}};
    const at::Tensor bare = logits_of(*golden.bare(), inputs);
    for (const bool trainable : {false, true}) {
      const auto model = golden.adapted(trainable);
      CHECK(largest_difference(logits_of(*model, inputs), golden.value("adapted_logits")) <
            kLogitTolerance);
      model->enable_adapters(false);
      CHECK(logits_of(*model, inputs).equal(bare));
    }
  }
}

TEST_CASE("loss and every gradient of a llama equal PEFT's", "[engine]") {
  for (const std::string& name : kCases) {
    for (const bool checkpointing : {false, true}) {
      INFO(name << (checkpointing ? " with" : " without") << " checkpointing");
      const GoldenCase golden(name);
      const auto model = golden.adapted(true);
      model->set_layer_checkpointing(checkpointing);
      const engine::Batch batch = golden.batch();
      const double loss = golden.value("loss").item<double>();
      const engine::LossSum evaluated = model->loss(batch);
      CHECK(std::abs(evaluated.sum / static_cast<double>(evaluated.count) - loss) < 1e-5 * loss);
      const double scale = 1.0 / static_cast<double>(evaluated.count);
      const engine::LossSum result = model->loss_and_gradients(batch, scale, {});
      CHECK(result.count == evaluated.count);
      CHECK(std::abs(result.sum * scale - loss) < 1e-5 * loss);
      testing::check_gradients(golden, model->trainable(), "grad.", 1e-4);
    }
  }
}

TEST_CASE("gradients of a llama accumulate, and a repeated step gives the same bytes", "[engine]") {
  const GoldenCase golden("llama_plain");
  const auto model = golden.adapted(true);
  const engine::Batch batch = golden.batch();
  model->loss_and_gradients(batch, 0.5, {});
  const at::Tensor once = model->trainable().gradients.clone();
  model->loss_and_gradients(batch, 0.5, {});
  CHECK(largest_difference(model->trainable().gradients, once * 2) < 1e-5);
  model->trainable().gradients.zero_();
  model->loss_and_gradients(batch, 0.5, {});
  CHECK(model->trainable().gradients.equal(once));
}

}  // namespace
}  // namespace lora
