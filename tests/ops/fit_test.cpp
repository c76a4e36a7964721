#include "lora/ops/fit.h"

#include "adapter/kinds.h"
#include "lora/adapter/update.h"
#include "lora/ops/adapter_set.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

KindFixture fixture_of(const std::string& name) {
  for (KindFixture& fixture : kind_fixtures())
    if (fixture.name == name) return fixture;
  FAIL("no fixture " << name);
  return {};
}

}  // namespace

TEST_CASE("adapters of every kind that PEFT wrote fit their base") {
  std::size_t seen = 0;
  const Json manifest = read_json_file(golden("kinds") / "manifest.json");
  for (const Json& entry : *manifest.as_array()) {
    if (entry.find("healthy")->as_bool() != true) continue;
    const KindFixture fixture = fixture_of(*entry.find("name")->as_string());
    Adapter adapter = open_adapter(fixture.path);
    INFO(fixture.name);
    CHECK(fit_problems(adapter, open_checkpoint(fixture.base.string())) ==
          std::vector<std::string>());
    ++seen;
  }
  REQUIRE(seen >= 80);
}

TEST_CASE(
    "the base settles names, layouts and strengths of expert parameters before they are used") {
  const KindFixture fixture = fixture_of("experts_two_ranks");
  Adapter adapter = open_adapter(fixture.path), expected = adapter;
  settle_parameters(expected, parameters_of_base(fixture.base), model_type_of(fixture.base));
  require_fit(adapter, open_checkpoint(fixture.base.string()));
  bool is_changed = false;
  const Adapter alone = open_adapter(fixture.path);
  for (std::size_t i = 0; i < adapter.modules.size(); ++i) {
    const LoraModule& module = adapter.modules[i];
    INFO(module.module_path);
    REQUIRE(module.base_name == expected.modules[i].base_name);
    REQUIRE(module.rank == expected.modules[i].rank);
    REQUIRE(module.scaling == expected.modules[i].scaling);
    REQUIRE(module.is_name_certain);
    is_changed = is_changed || module.rank != alone.modules[i].rank ||
                 module.base_name != alone.modules[i].base_name ||
                 module.is_layout_certain != alone.modules[i].is_layout_certain ||
                 module.is_name_certain != alone.modules[i].is_name_certain;
  }
  // Otherwise nothing would have been left to the base.
  REQUIRE(is_changed);
}

// That the settled strength is PEFT's is shown by the deltas of tests/adapter/kinds_test.cpp.
TEST_CASE("a weight multiplies the strength that the base settled, of every kind of site") {
  std::size_t parameters = 0;
  for (const KindFixture& fixture : kind_fixtures()) {
    INFO(fixture.name);
    Adapter settled = open_adapter(fixture.path);
    settle_parameters(settled, parameters_of_base(fixture.base), model_type_of(fixture.base));
    Adapter weighed = open_adapter(fixture.path);
    const Checkpoint base = open_checkpoint(fixture.base.string());
    if (!fit_problems(weighed, base).empty()) continue;
    apply_weight(weighed, -0.25);
    REQUIRE(weighed.modules.size() == settled.modules.size());
    for (std::size_t i = 0; i < settled.modules.size(); ++i) {
      const LoraModule& module = weighed.modules[i];
      INFO(module.module_path);
      CHECK(module.base_name == settled.modules[i].base_name);
      CHECK(module.scaling == -0.25 * settled.modules[i].scaling);
      parameters += module.kind == LayerKind::parameter ? 1 : 0;
      const std::vector<UpdateFactor> factors = update_factors(module);
      const std::vector<UpdateFactor> whole = update_factors(settled.modules[i]);
      REQUIRE(factors.size() == whole.size());
      for (std::size_t k = 0; k < factors.size(); ++k)
        CHECK(factors[k].scaling == -0.25 * whole[k].scaling);
    }
  }
  REQUIRE(parameters > 30);
}

TEST_CASE("everything that does not fit is listed, up to ten and how many more") {
  const TempDir directory;
  const Checkpoint base = sample_base(directory / "base");
  TensorMap tensors = sample_tensors();
  tensors["base_model.model.fc1.lora_A.weight"] = normal_tensor("a", {4, 11});
  for (int i = 0; i < 12; ++i) {
    const std::string site = "base_model.model.x" + std::to_string(i) + ".lora_";
    tensors[site + "A.weight"] = normal_tensor(site, {4, 10});
    tensors[site + "B.weight"] = normal_tensor(site, {20, 4});
  }
  Adapter adapter = make_adapter(sample_config(), tensors, "adapter");
  REQUIRE(fit_problems(adapter, base).size() == 13);
  require_error(ErrorKind::incompatible, "fc1: misshaped, update [20, 11], base [20, 10]",
                [&] { require_fit(adapter, base); });
  require_error(ErrorKind::incompatible, "and 3 more", [&] { require_fit(adapter, base); });
  Adapter whole = make_adapter(sample_config(), sample_tensors(), "adapter");
  require_fit(whole, base);
}
