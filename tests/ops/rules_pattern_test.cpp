#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

namespace {

const std::string kQ0 = "model.layers.0.q";
const std::string kQ1 = "model.layers.1.q";

// JSON by hand: the writer of configurations sorts the patterns.
std::string config_with(const std::string& patterns) {
  return R"({"peft_type": "LORA", "peft_version": "0.21.2", "r": 4, "lora_alpha": 8,
             "target_modules": ["q"], )" +
         patterns + "}";
}

TensorMap ranks(std::int64_t first, std::int64_t second) {
  TensorMap tensors;
  add_pair(tensors, kQ0, first, 6, 5);
  add_pair(tensors, kQ1, second, 6, 5);
  return tensors;
}

}  // namespace

TEST_CASE("LV207: patterns that match nothing, with and without a base") {
  VerifyCase sample;
  const std::string dead = config_with(R"("rank_pattern": {"^q": 4, "layers.1.q": 2})");
  require_rule(sample.run(dead, ranks(4, 2)), "LV207", Severity::warning, "^q");
  sample.set_base({{kQ0 + ".weight", normal_tensor("0", {5, 6})},
                   {kQ1 + ".weight", normal_tensor("1", {5, 6})}});
  require_rule(sample.run(dead, ranks(4, 2)), "LV207", Severity::warning, "none of 2");
  forbid_rule(sample.run(config_with(R"("rank_pattern": {"layers.1.q": 2})"), ranks(4, 2)),
              "LV207");
}

TEST_CASE("LV208: an order that a reload changes is an error, and the tensors say which one held") {
  VerifyCase sample;
  // In the order of the file all have rank 2, sorted layer 0 has 4.
  const VerifyReport report =
      sample.run(config_with(R"("rank_pattern": {"q": 2, "layers.0.q": 4})"), ranks(2, 2));
  require_rule(report, "LV208", Severity::error,
               "rank 2 in the order of the file and 4 once PEFT saved it sorted (the tensors have "
               "the former)");
  require_rule(
      sample.run(config_with(R"("alpha_pattern": {"q": 2, "layers.0.q": 4})"), ranks(4, 4)),
      "LV208", Severity::error, "alpha 2 in the order of the file and 4");
}

TEST_CASE("LV208: a sorted file is proven by its ranks, doubtful in its alphas") {
  VerifyCase sample;
  const VerifyReport proven =
      sample.run(config_with(R"("rank_pattern": {"layers.0.q": 4, "q": 2})"), ranks(4, 2));
  require_rule(proven, "LV208", Severity::note, "rank 4 in either order");
  require_healthy(proven);
  require_rule(sample.run(config_with(R"("rank_pattern": {"layers.0.q": 4, "q": 2})"), ranks(2, 2)),
               "LV208", Severity::error, "trained in another");
  require_rule(
      sample.run(config_with(R"("alpha_pattern": {"layers.0.q": 4, "q": 2})"), ranks(4, 4)),
      "LV208", Severity::warning, "alpha 4 in the order of the file");
}

TEST_CASE("LV208: equal values are harmless and disjoint keys no overlap") {
  VerifyCase sample;
  const VerifyReport equal =
      sample.run(config_with(R"("alpha_pattern": {"layers.0.q": 4, "q": 4})"), ranks(4, 4));
  require_rule(equal, "LV208", Severity::note, "with one value, 4");
  require_healthy(equal);
  forbid_rule(sample.run(config_with(R"("alpha_pattern": {"layers.0.q": 4, "layers.1.q": 2})"),
                         ranks(4, 4)),
              "LV208");
}
