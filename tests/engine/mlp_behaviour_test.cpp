#include "golden_case.h"

namespace lora {
namespace {

using testing::GoldenCase;
using testing::require_error;

TEST_CASE("an mlp refuses other inputs, labels and text generation", "[engine]") {
  const GoldenCase golden("mlp_none");
  const auto model = golden.bare();
  const Tensor narrow = Tensor::from_f32({2, 3}, std::vector<float>(6));
  require_error(ErrorKind::incompatible, "expected {x}", [&] {
    model->forward({{"input_ids", narrow}});
  });
  require_error(ErrorKind::incompatible, "x is F32 [2, 3], expected F32 [rows, 6]", [&] {
    model->forward({{"x", narrow}});
  });
  require_error(ErrorKind::unsupported, "no tokens", [&] { model->generate({1}, {}); });
  engine::Batch batch;
  batch.x = Tensor::from_f32({2, 6}, std::vector<float>(12));
  batch.y = Tensor::from_i64({2}, std::vector<std::int64_t>{0, 4});
  require_error(ErrorKind::incompatible, "class 4 in row 1", [&] { model->loss(batch); });
  batch.y = narrow;
  require_error(ErrorKind::incompatible, "expected I64 [2] (classes) or F32 [2, 4]",
                [&] { model->loss(batch); });
}

}  // namespace
}  // namespace lora
