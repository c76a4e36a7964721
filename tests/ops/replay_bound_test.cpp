#include "ops/replay/bound.h"
#include "support/testing.h"

namespace lora::replay {
namespace {

Tensor f16(float value) {
  const std::vector<float> values{value};
  std::vector<std::byte> bytes(2);
  narrow(std::span<const float>(values), DType::f16, bytes.data());
  return Tensor::from_bytes(DType::f16, {1, 1}, std::move(bytes));
}

Outcome judged(float base, float update, const Tensor& merged) {
  const std::vector<float> one{1}, value{update};
  Target target;
  target.base = f16(base);
  target.merged = merged;
  target.columns = 1;
  target.blocks = {
      {0, 1, {{Tensor::from_f32({1, 1}, value), Tensor::from_f32({1, 1}, one), false, 1}}}};
  Outcome outcome;
  bound(target, 1, {}, outcome);
  return outcome;
}

TEST_CASE(
    "the bound of a merge in 16 bits has room for an update that was rounded before it was added") {
  // safe_merge makes 1.0004 the F16 1 and the sum 0, where the exact sum is 0.0004.
  REQUIRE(judged(-1, 1.0004F, f16(0)).proof == MergeProof::one_ulp);
  REQUIRE(judged(-1, 1.0004F, f16(0.0004F)).proof == MergeProof::one_ulp);
  // Half an ulp of the update is 0.0005; another 0.0005 is none of its roundings.
  REQUIRE(judged(-1, 1.0004F, f16(-0.0002F)).proof == MergeProof::differs);
  REQUIRE(judged(-1, 1.0004F, f16(0.001F)).proof == MergeProof::differs);
  // Without cancelling the one ulp of the sum counts: here 0.001 and the 0.0005 of the update.
  REQUIRE(judged(1, 0.5F, f16(1.501F)).proof == MergeProof::one_ulp);
  REQUIRE(judged(1, 0.5F, f16(1.503F)).proof == MergeProof::differs);
}

}  // namespace
}  // namespace lora::replay
