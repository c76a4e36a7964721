#include "golden_case.h"

namespace lora {
namespace {

using testing::GoldenCase;

const std::vector<std::string> kCases{"mlp_log_softmax", "mlp_sigmoid", "mlp_none"};

TEST_CASE("an adapted mlp has PEFT's outputs", "[engine]") {
  for (const std::string& name : kCases) {
    INFO(name);
    const GoldenCase golden(name);
    const TensorMap outputs = golden.adapted(false)->forward({{"x", golden.expected.at("x")}});
    CHECK(testing::largest_difference(engine::view_of(outputs.at("output")),
                                      golden.value("output")) < 1e-6);
  }
}

TEST_CASE("loss and gradients of an mlp equal PEFT's for classes and values", "[engine]") {
  for (const std::string& name : kCases) {
    for (const std::string kind : {"classes", "values"}) {
      INFO(name << " " << kind);
      const GoldenCase golden(name);
      const auto model = golden.adapted(true);
      engine::Batch batch;
      batch.x = golden.expected.at("x");
      batch.y = golden.expected.at(kind);
      batch.rows = batch.x.shape[0];
      const engine::LossSum evaluated = model->loss(batch);
      REQUIRE(evaluated.count == (kind == "classes" ? 11 : 44));
      const double scale = 1.0 / static_cast<double>(evaluated.count);
      const engine::LossSum result = model->loss_and_gradients(batch, scale, {});
      const double loss = golden.value(kind + ".loss").item<double>();
      CHECK(std::abs(result.sum * scale - loss) < 1e-5 * loss);
      CHECK(std::abs(evaluated.sum * scale - loss) < 1e-5 * loss);
      testing::check_gradients(golden, model->trainable(), kind + ".grad.", 1e-4);
    }
  }
}

}  // namespace
}  // namespace lora
