#include "lora/ops/adapter_set.h"

#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

Adapter adapter(const std::string& path, std::uint64_t seed = 1,
                AdapterConfig config = sample_config(), const TensorMap& more = {}) {
  TensorMap tensors = sample_tensors(seed);
  tensors.insert(more.begin(), more.end());
  return make_adapter(std::move(config), std::move(tensors), path);
}

void require_conflict(const Adapter& a, const Adapter& b, std::string_view part) {
  const auto conflicts = adapter_conflicts({&a, &b});
  REQUIRE(conflicts.size() == 1);
  INFO(conflicts[0]);
  REQUIRE(conflicts[0].find("a and b ") == 0);
  REQUIRE(conflicts[0].find(part) != std::string::npos);
  require_error(ErrorKind::incompatible, part, [&] { require_no_conflict({&a, &b}); });
}

AdapterConfig with_head() {
  AdapterConfig config = sample_config();
  config.modules_to_save = {"head"};
  return config;
}

TensorMap head(const std::string& name) {
  return {{"base_model.model.head.weight", normal_tensor(name, {3, 2})}};
}

}  // namespace

TEST_CASE("plain adapters are active together, and a weight scales their updates") {
  Adapter a = adapter("a"), b = adapter("b", 2);
  REQUIRE(adapter_conflicts({&a, &b}).empty());
  apply_weight(b, -0.5);
  REQUIRE(b.find("fc1")->scaling == -1);
  REQUIRE(a.find("fc1")->scaling == 2);
}

TEST_CASE("two values for one saved module contradict each other, equal ones do not") {
  const Adapter a = adapter("a", 1, with_head(), head("x"));
  const Adapter b = adapter("b", 2, with_head(), head("y"));
  const Adapter same = adapter("b", 2, with_head(), head("x"));
  require_conflict(a, b, "replace with different values: head");
  REQUIRE(adapter_conflicts({&a, &same}).empty());
  const Adapter plain = adapter("b", 2);
  REQUIRE(adapter_conflicts({&a, &plain}).empty());
}

TEST_CASE("biases of two adapters contradict each other, those of one do not") {
  AdapterConfig all = sample_config(), some = sample_config();
  all.bias = BiasMode::all;
  some.bias = BiasMode::lora_only;
  const Adapter a = adapter("a", 1, all), b = adapter("b", 2, some), plain = adapter("b", 2);
  require_conflict(a, b, "bias all and bias lora_only");
  REQUIRE(adapter_conflicts({&a, &plain}).empty());
}

TEST_CASE("a module that one replaces and the other adapts is a conflict") {
  const Adapter a = adapter("a", 1, with_head(), head("x"));
  AdapterConfig config = sample_config();
  config.target_modules = std::vector<std::string>{"fc1", "fc2", "head"};
  const Adapter b = adapter("b", 2, config,
                            {{"base_model.model.head.lora_A.weight", normal_tensor("a", {4, 2})},
                             {"base_model.model.head.lora_B.weight", normal_tensor("b", {3, 4})}});
  require_conflict(a, b, "a replaces and b adapts head");
}

TEST_CASE("copies of the base that adapters bring along contradict each other when they differ") {
  AdapterConfig config = sample_config();
  config.target_modules = std::vector<std::string>{"fc1", "fc2", "lm_head"};
  const auto with_copy = [&](const std::string& path, const char* seed) {
    return adapter(path, 1, config,
                   {{"base_model.model.lm_head.base_layer.weight", normal_tensor(seed, {3, 2})},
                    {"base_model.model.lm_head.lora_A.weight", normal_tensor("a", {4, 2})},
                    {"base_model.model.lm_head.lora_B.weight", normal_tensor("b", {3, 4})}});
  };
  const Adapter a = with_copy("a", "x"), same = with_copy("b", "x"), other = with_copy("b", "y");
  REQUIRE(is_base_copy(a, "lm_head.weight"));
  REQUIRE(!is_base_copy(a, "fc1.weight"));
  REQUIRE(adapter_conflicts({&a, &same}).empty());
  REQUIRE(adapter_conflicts({&a, &other}).size() >= 1);

  Checkpoint base;
  base.tensors["lm_head.weight"] = normal_tensor("x", {3, 2});
  Adapter copy = a;
  drop_base_copies(copy, base);
  REQUIRE(copy.replacements.empty());
  base.tensors["lm_head.weight"] = normal_tensor("y", {3, 2});
  copy = a;
  drop_base_copies(copy, base);
  REQUIRE(copy.replacements.size() == 1);
  // The same numbers in another dtype.
  Adapter wide = a;
  wide.replacements["lm_head.weight"] =
      normal_tensor("x", {3, 2}).cast(DType::bf16).cast(DType::f32);
  base.tensors["lm_head.weight"] = normal_tensor("x", {3, 2}).cast(DType::bf16);
  drop_base_copies(wide, base);
  REQUIRE(wide.replacements.empty());
}

TEST_CASE("overlapping token rows contradict each other, separate ones do not") {
  Adapter a = adapter("a"), b = adapter("b", 2);
  a.tokens = {{"emb", {1, 2, 5}, normal_tensor("r", {3, 4})}};
  b.tokens = {{"emb", {5, 7}, normal_tensor("s", {2, 4})}};
  require_conflict(a, b, "both bring rows of emb: 5");
  b.tokens[0].indices = {6, 7};
  REQUIRE(adapter_conflicts({&a, &b}).empty());
}

TEST_CASE("an initialisation that rewrites the base cannot stand beside another adapter") {
  AdapterConfig pissa = sample_config();
  pissa.init_lora_weights = "pissa_niter_4";
  const Adapter a = adapter("a", 1, pissa), b = adapter("b", 2);
  require_conflict(a, b, "a was initialised with pissa_niter_4");
  REQUIRE(adapter_conflicts({&a}).empty());
  AdapterConfig kasa = sample_config();
  kasa.other["kasa_config"] = JsonObject{{"beta", 1e-4}};
  const Adapter c = adapter("a", 1, kasa);
  require_conflict(c, b, "a uses KaSA");
}

TEST_CASE("expert parameters of one model are one set") {
  const auto config = [](JsonArray parameters) {
    AdapterConfig targets = sample_config();
    targets.other["target_parameters"] = std::move(parameters);
    return targets;
  };
  const Adapter a = adapter("a", 1, config({"experts.up", "experts.down"}));
  const Adapter b = adapter("b", 2, config({"experts.up"}));
  require_conflict(a, b, "target other parameters");
  const Adapter same = adapter("b", 2, config({"experts.down", "experts.up"}));
  REQUIRE(adapter_conflicts({&a, &same}).empty());
  const Adapter plain = adapter("b", 2);
  REQUIRE(adapter_conflicts({&a, &plain}).empty());
}

TEST_CASE("adapters are grouped by the root of their base where it is known, else by its name") {
  Digest one, two;
  two.bytes[0] = 1;
  const std::vector<StatedBase> bases{{"x", one}, {"x", two},          {"y", one},
                                      {"x", {}},  {std::nullopt, two}, {std::nullopt, {}}};
  const std::vector<BaseGroup> groups = group_by_base(bases);
  REQUIRE(groups.size() == 2);
  REQUIRE(groups[0].members == std::vector<std::size_t>{0, 2, 3});
  REQUIRE(groups[1].members == std::vector<std::size_t>{1, 4});
  REQUIRE(group_by_base({{"x", {}}, {"y", {}}}).size() == 2);
  REQUIRE(is_other_base(bases[0], bases[1]));
  REQUIRE(!is_other_base(bases[0], bases[2]));
  REQUIRE(is_other_base(bases[0], bases[4]));
  REQUIRE(!is_other_base(bases[0], bases[5]));
}

TEST_CASE("of three adapters every conflicting pair is named") {
  const Adapter a = adapter("a", 1, with_head(), head("x"));
  const Adapter b = adapter("b", 2, with_head(), head("y"));
  const Adapter c = adapter("c", 3, with_head(), head("z"));
  REQUIRE(adapter_conflicts({&a, &b, &c}).size() == 3);
}
