#include "adapter/kinds.h"

#include <cmath>
#include <set>

#include "lora/adapter/keys.h"
#include "lora/adapter/update.h"
#include "support/testing.h"

namespace lora {
namespace {

using testing::kind_fixtures;
using testing::KindFixture;
using testing::read_file;
using testing::TempDir;

namespace fs = std::filesystem;

KindFixture fixture_of(const std::string& name) {
  for (KindFixture& fixture : kind_fixtures())
    if (fixture.name == name) return fixture;
  FAIL("no fixture " << name);
  return {};
}

Adapter settled(const KindFixture& fixture) {
  Adapter adapter = open_adapter(fixture.path);
  settle_parameters(adapter, testing::parameters_of_base(fixture.base),
                    testing::model_type_of(fixture.base));
  return adapter;
}

LayerKind base_kind_of(const KindFixture& fixture, const LoraModule& module) {
  const bool has_conv1d = fixture.base.filename() == "conv1d" || fixture.base.filename() == "gpt2";
  return has_conv1d && module.module_path.find(".c_") != std::string::npos ? LayerKind::conv1d
                                                                           : module.kind;
}

/// The update in the layout of the base, recomputed from the products in float64.
std::vector<double> dense_update(const LoraModule& module, LayerKind base_kind) {
  const MatrixShape shape = update_shape(module);
  const auto rows = static_cast<std::size_t>(shape.rows);
  const auto columns = static_cast<std::size_t>(shape.columns);
  const bool transposed = is_transposed(module, base_kind);
  std::vector<double> update(static_cast<std::size_t>(module.experts) * rows * columns);
  for (const UpdateFactor& factor : update_factors(module)) {
    const std::vector<double> a = factor.a.to_f64();
    const std::vector<double> b = factor.b.to_f64();
    const auto rank = static_cast<std::size_t>(factor.a.shape.at(0));
    REQUIRE(factor.a.shape.at(1) == shape.columns);
    REQUIRE(factor.b.shape.at(1) == factor.a.shape.at(0));
    for (std::size_t i = 0; i < static_cast<std::size_t>(factor.b.shape.at(0)); ++i)
      for (std::size_t j = 0; j < columns; ++j) {
        double sum = 0;
        for (std::size_t k = 0; k < rank; ++k) sum += b[i * rank + k] * a[k * columns + j];
        const std::size_t row = static_cast<std::size_t>(factor.first_row) + i;
        const std::size_t at = transposed ? j * rows + row : row * columns + j;
        update.at(static_cast<std::size_t>(factor.expert) * rows * columns + at) +=
            factor.scaling * sum;
      }
  }
  return update;
}

double largest_difference(const std::vector<double>& x, const std::vector<double>& y) {
  if (x.size() != y.size()) return std::numeric_limits<double>::infinity();
  double largest = 0;
  for (std::size_t i = 0; i < x.size(); ++i) largest = std::max(largest, std::fabs(x[i] - y[i]));
  return largest;
}

bool is_accounted_for(const Adapter& adapter, const std::string& key) {
  const ParsedKey parsed = parse_key(key);
  switch (parsed.role) {
    case KeyRole::saved:
    case KeyRole::base_layer:
      return adapter.replacements.contains(to_base_name(parsed));
    case KeyRole::trainable_tokens:
      return std::any_of(adapter.tokens.begin(), adapter.tokens.end(), [&](const TokenRows& rows) {
        return rows.module_path == parsed.module_path;
      });
    case KeyRole::original:
      return true;
    case KeyRole::magnitude:
      return adapter.find(parsed.module_path)->magnitude.has_value();
    case KeyRole::lora_b_bias:
      return adapter.find(parsed.module_path)->bias.has_value();
    case KeyRole::variant:
      return parsed.parameter != "lora_diag" ||
             adapter.find(parsed.module_path)->diagonal.has_value();
    default:
      return adapter.find(parsed.module_path) != nullptr;
  }
}

TEST_CASE("kinds: every tensor of a healthy adapter is accounted for without a problem") {
  const std::vector<KindFixture> fixtures = kind_fixtures();
  REQUIRE(fixtures.size() > 100);
  for (const KindFixture& fixture : fixtures) {
    INFO(fixture.name);
    const Adapter adapter = open_adapter(fixture.path);
    for (const KeyProblem& problem : adapter.problems)
      FAIL_CHECK(problem.key << " " << problem.message);
    for (const auto& [key, tensor] : adapter.tensors) {
      INFO(key);
      CHECK(is_accounted_for(adapter, key));
    }
  }
}

TEST_CASE("kinds: the update is what PEFT adds, in float64") {
  for (const KindFixture& fixture : kind_fixtures()) {
    INFO(fixture.name);
    const Adapter adapter = settled(fixture);
    const TensorMap expected = read_safetensors(fixture.deltas).tensors;
    std::set<std::string> seen;
    for (const LoraModule& module : adapter.modules) {
      INFO(module.module_path << " on " << module.base_name);
      CHECK(seen.insert(module.base_name).second);
      REQUIRE(expected.contains(module.base_name));
      const std::vector<double> update = dense_update(module, base_kind_of(fixture, module));
      CHECK(largest_difference(update, expected.at(module.base_name).to_f64()) < 1e-12);
    }
    CHECK(seen.size() == expected.size());
  }
}

TEST_CASE("kinds: what is written again stays the same") {
  for (const KindFixture& fixture : kind_fixtures()) {
    INFO(fixture.name);
    const Adapter adapter = open_adapter(fixture.path);
    if (adapter.is_pickle) continue;
    const TempDir folder;
    const auto written = [&](const Adapter& source, const char* name) {
      AtomicDirectory out(folder / name, {});
      write_adapter(out, source.config, source.tensors);
      out.commit();
      return folder / name;
    };
    const fs::path first = written(adapter, "first");
    const fs::path second = written(open_adapter(first), "second");
    for (const char* file : {kAdapterWeightsName, kAdapterConfigName})
      CHECK(read_file(first / file) == read_file(second / file));
    if (adapter.unclean_keys.empty())
      CHECK(read_file(first / kAdapterWeightsName) ==
            read_file(fixture.path / kAdapterWeightsName));
    if (adapter.config.peft_version == "0.21.2")
      CHECK(read_file(first / kAdapterConfigName) == read_file(fixture.path / kAdapterConfigName));
  }
}

TEST_CASE("kinds: an attention module has two sites and PEFT adds the second twice") {
  for (const std::string version : {"", "-0.17.1", "-0.18.1", "-0.19.1", "-0.20.0"}) {
    INFO(version);
    const Adapter adapter = open_adapter(fixture_of("attention" + version).path);
    REQUIRE(adapter.modules.size() == 2);
    CHECK(adapter.modules[0].kind == LayerKind::attention);
    CHECK(adapter.modules[0].base_name == "attn.in_proj_weight");
    CHECK(adapter.modules[0].times == 1);
    CHECK(adapter.modules[1].module_path == "attn.base_layer.out_proj");
    CHECK(adapter.modules[1].base_name == "attn.out_proj.weight");
    CHECK(adapter.modules[1].times == 2);
  }
  const Adapter patterned = open_adapter(fixture_of("attention_patterns").path);
  CHECK(patterned.find("attn.base_layer.out_proj")->rank == 3);
  CHECK(patterned.find("attn.base_layer.out_proj")->alpha == 5);
}

TEST_CASE("kinds: the version reads experts, and only shapes prove the layout") {
  const Adapter old = open_adapter(fixture_of("experts-0.18.1").path);
  CHECK(old.modules.at(0).is_in_out);
  CHECK(old.modules.at(0).is_layout_certain);
  CHECK(old.modules.at(0).experts == 3);
  const Adapter unmarked = open_adapter(fixture_of("experts-0.17.1").path);
  CHECK(unmarked.modules.at(0).is_in_out);
  CHECK_FALSE(unmarked.modules.at(0).is_layout_certain);
  const Adapter recent = open_adapter(fixture_of("experts-0.19.1").path);
  CHECK_FALSE(recent.modules.at(0).is_in_out);
  CHECK_FALSE(recent.modules.at(0).is_layout_certain);
  CHECK(settled(fixture_of("experts-0.19.1")).modules.at(0).is_layout_certain);
  CHECK(settled(fixture_of("experts_transposed")).modules.at(0).is_in_out);
  CHECK_FALSE(settled(fixture_of("experts_square")).modules.at(0).is_layout_certain);
  CHECK(settled(fixture_of("experts_square-0.18.1")).modules.at(0).is_layout_certain);
  const Adapter declared = settled(fixture_of("gpt_oss_experts"));
  const LoraModule* down = declared.find("model.layers.0.mlp.experts");
  CHECK(down->base_name == "model.layers.0.mlp.experts.down_proj");
  CHECK(down->is_in_out);
  CHECK(down->is_layout_certain);
}

TEST_CASE("kinds: two parameters of one module are told apart by nesting, proven by shapes") {
  const KindFixture fixture = fixture_of("experts_two_ranks");
  const Adapter alone = open_adapter(fixture.path);
  const LoraModule* inner = alone.find("mlp.experts.base_layer");
  REQUIRE(inner != nullptr);
  CHECK(inner->kind == LayerKind::parameter);
  CHECK(inner->base_name == "mlp.experts.gate_up_proj");
  CHECK(inner->rank == 2);
  CHECK_FALSE(inner->is_name_certain);
  CHECK(alone.find("mlp.experts")->base_name == "mlp.experts.down_proj");
  CHECK(alone.find("mlp.experts")->rank == 3);
  CHECK(alone.find("mlp.experts")->experts == 3);
  for (const LoraModule& module : settled(fixture).modules) CHECK(module.is_name_certain);
}

TEST_CASE("kinds: a base of other shapes settles nothing") {
  Adapter adapter = open_adapter(fixture_of("experts").path);
  ModuleInfo info;
  info.module_path = "mlp.experts.gate_up_proj";
  info.kind = LayerKind::parameter;
  info.weight_shape = {3, 10, 9};
  settle_parameters(adapter, {info});
  CHECK_FALSE(adapter.modules.at(0).is_layout_certain);
  info.weight_shape = {3, 4, 10};
  settle_parameters(adapter, {info});
  CHECK(adapter.modules.at(0).is_layout_certain);
  CHECK(adapter.modules.at(0).is_in_out);
}

TEST_CASE("kinds: token rows know their embedding and their indices") {
  const Adapter listed = open_adapter(fixture_of("tokens_list").path);
  REQUIRE(listed.tokens.size() == 1);
  CHECK(listed.tokens[0].module_path == "model.embed_tokens");
  CHECK(listed.tokens[0].indices == std::vector<std::int64_t>{7, 1, 5});
  CHECK(listed.tokens[0].rows.shape == std::vector<std::int64_t>{3, 8});
  const Adapter named = open_adapter(fixture_of("tokens_object").path);
  REQUIRE(named.tokens.size() == 2);
  CHECK(named.tokens[0].module_path == "lm_head");
  CHECK(named.tokens[0].indices == std::vector<std::int64_t>{2});
  CHECK(named.tokens[1].indices == std::vector<std::int64_t>{0, 3});
  CHECK(open_adapter(fixture_of("tokens_gpt2").path).tokens.at(0).module_path == "transformer.wte");
}

TEST_CASE("kinds: a head tied to its embedding is marked, an independent one is not") {
  const Adapter together = open_adapter(fixture_of("tied_together").path);
  CHECK(together.find("lm_head")->tied_to == "model.embed_tokens");
  CHECK(together.find("model.embed_tokens")->tied_to.empty());
  CHECK(open_adapter(fixture_of("tied_independent").path).find("lm_head")->tied_to.empty());
  const Adapter saved = open_adapter(fixture_of("tied_saved").path);
  CHECK(saved.replacements.contains("lm_head.weight"));
  CHECK(saved.replacements.contains("model.embed_tokens.weight"));
}

TEST_CASE("kinds: a folder with several adapters names them") {
  const fs::path parent = fixture_of("several_first").path.parent_path();
  testing::require_error(ErrorKind::not_found, "only folders with adapters (first, second)",
                         [&] { open_adapter(parent); });
  CHECK(open_adapter(parent / "second").modules.size() == 2);
}

TEST_CASE("kinds: names inside a module with parameters of its own are those of the base") {
  const Adapter adapter = open_adapter(fixture_of("experts_with_router").path);
  const LoraModule* router = adapter.find("mlp.experts.base_layer.base_layer.router");
  REQUIRE(router != nullptr);
  CHECK(router->base_name == "mlp.experts.router.weight");
  CHECK(router->rank == 3);
  CHECK(adapter.replacements.contains("mlp.experts.router.bias"));
}

TEST_CASE("kinds: grouped convolutions and block-diagonal factors give one product a block") {
  const Adapter grouped = open_adapter(fixture_of("convolution_grouped").path);
  const LoraModule& convolution = grouped.modules.at(0);
  CHECK(convolution.kind == LayerKind::convolution);
  CHECK(convolution.groups == 2);
  CHECK(convolution.rank == 4);
  const std::vector<UpdateFactor> factors = update_factors(convolution);
  REQUIRE(factors.size() == 2);
  CHECK(factors[1].first_row == 3);
  CHECK(factors[1].b.bytes.data() > convolution.b.bytes.data());
  const Adapter blocks = open_adapter(fixture_of("bdlora").path);
  CHECK(blocks.find("layers.0.attn.q_proj")->blocks_a == 2);
  CHECK(update_shape(*blocks.find("layers.0.attn.q_proj")).columns == 6);
  CHECK(update_factors(*blocks.find("layers.0.mlp.up")).size() == 2);
  CHECK(blocks.find("layers.0.mlp.up")->rank == 4);
}

}  // namespace
}  // namespace lora
