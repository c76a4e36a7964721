// Factors that are taken out of the base: what is left, and what loading and training make of it.
#include "engine/train_fixtures.h"
//
#include <ATen/ops/allclose.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/mm.h>

#include <cmath>
#include <set>

#include "engine/base_change.h"
#include "engine/bridge.h"
#include "engine/train/adapter_init.h"
#include "engine/train/new_layer.h"
#include "engine/train/new_tokens.h"
#include "engine/train/plain_result.h"
#include "lora/adapter/targets.h"
#include "lora/checkpoint/train_run.h"

using namespace lora;
using namespace lora::engine;
using namespace lora::testing;

namespace {

const std::string kPrefix = "base_model.model.";

BaseChange change_of(const std::string& init) {
  AdapterConfig config;
  config.init_lora_weights = Json(init);
  return base_change_of(config).value();
}

at::Tensor weight_of(std::vector<std::int64_t> shape) {
  return view_of(random_tensor(std::move(shape), 3)).clone();
}

bool is_close(const at::Tensor& a, const at::Tensor& b) { return at::allclose(a, b, 1e-5, 1e-5); }

TrainOptions options_with(const TrainFixture& fixture, const std::string& run,
                          const std::string& init) {
  TrainOptions options = fixture.options(run);
  options.init = init;
  return options;
}

std::vector<float> outputs_of(const Checkpoint& base, const Adapter* adapter) {
  ModelOptions options;
  options.base = &base;
  if (adapter != nullptr) options.adapters = {adapter};
  return make_model(options)->forward({{"x", random_tensor({5, 10}, 9)}}).at("output").to_f32();
}

void require_close(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) REQUIRE(a[i] == Approx(b[i]).margin(1e-5));
}

}  // namespace

TEST_CASE("PiSSA takes the largest singular values out of a weight, each factor half of them") {
  const at::Tensor weight = weight_of({7, 5});
  const ChangedLayer layer{"fc", LayerKind::linear, 2, 0.5};
  const FactorPair factors = first_factors(change_of("pissa"), layer, weight);
  const auto [u, s, vh] = at::linalg_svd(weight, false);
  const at::Tensor best = at::mm(u.narrow(1, 0, 2).mul(s.narrow(0, 0, 2)), vh.narrow(0, 0, 2));
  REQUIRE(is_close(at::mm(factors.b, factors.a).mul(0.5), best));
  REQUIRE(is_close(factors.a.norm(2, 1), factors.b.norm(2, 0)));
  const at::Tensor rest = without_factors(change_of("pissa"), layer, weight, factors);
  REQUIRE(is_close(rest, weight.sub(best)));
  REQUIRE(rest.scalar_type() == at::kFloat);
}

TEST_CASE("PiSSA of a Conv1D works on the transposed weight and gives it back as it is stored") {
  const at::Tensor weight = weight_of({5, 7});
  const ChangedLayer stored{"fc", LayerKind::conv1d, 3, 2};
  const FactorPair factors = first_factors(change_of("pissa"), stored, weight);
  REQUIRE(factors.a.sizes() == at::IntArrayRef({3, 5}));
  REQUIRE(factors.b.sizes() == at::IntArrayRef({7, 3}));
  const at::Tensor rest = without_factors(change_of("pissa"), stored, weight, factors);
  REQUIRE(is_close(rest.add(at::mm(factors.b, factors.a).mul(2).t()), weight));
}

TEST_CASE("the randomised SVD finds the same factors again and nears the exact ones") {
  const at::Tensor weight = weight_of({6, 9});
  const ChangedLayer layer{"fc", LayerKind::linear, 2, 1};
  const FactorPair once = first_factors(change_of("pissa_niter_3"), layer, weight);
  const FactorPair again = first_factors(change_of("pissa_niter_3"), layer, weight);
  REQUIRE(once.a.equal(again.a));
  REQUIRE(once.b.equal(again.b));
  const FactorPair near = first_factors(change_of("pissa_niter_200"), layer, weight);
  const FactorPair exact = first_factors(change_of("pissa"), layer, weight);
  REQUIRE(at::allclose(at::mm(near.b, near.a), at::mm(exact.b, exact.a), 1e-3, 1e-3));
  const at::Tensor rest = without_factors(change_of("pissa_niter_3"), layer, weight, once);
  REQUIRE(is_close(rest.add(at::mm(once.b, once.a)), weight));
}

TEST_CASE("OLoRA's B is orthonormal and its A the upper rows of R") {
  const at::Tensor weight = weight_of({7, 5});
  const ChangedLayer layer{"fc", LayerKind::linear, 3, 4};
  const FactorPair factors = first_factors(change_of("olora"), layer, weight);
  REQUIRE(is_close(at::mm(factors.b.t(), factors.b), at::eye(3)));
  REQUIRE(is_close(at::mm(factors.b.t(), weight), factors.a));
  const at::Tensor rest = without_factors(change_of("olora"), layer, weight, factors);
  REQUIRE(is_close(rest.add(at::mm(factors.b, factors.a).mul(4)), weight));
}

TEST_CASE("the rest of a bf16 weight is bf16") {
  const at::Tensor weight = weight_of({4, 4}).to(at::kBFloat16);
  const ChangedLayer layer{"fc", LayerKind::linear, 2, 1};
  const FactorPair factors = first_factors(change_of("pissa"), layer, weight);
  REQUIRE(factors.a.scalar_type() == at::kFloat);
  REQUIRE(without_factors(change_of("pissa"), layer, weight, factors).scalar_type() ==
          at::kBFloat16);
}

TEST_CASE("factors that cannot be taken out are refused by name") {
  const at::Tensor weight = weight_of({4, 3});
  const auto refuses = [&](ErrorKind kind, const char* part, const char* init,
                           const ChangedLayer& layer) {
    require_error(kind, part, [&] { first_factors(change_of(init), layer, weight); });
  };
  refuses(ErrorKind::unsupported, "wte: it is an embedding", "pissa",
          {"wte", LayerKind::embedding, 2, 1});
  refuses(ErrorKind::unsupported, "c_fc: it is a Conv1D", "olora",
          {"c_fc", LayerKind::conv1d, 2, 1});
  refuses(ErrorKind::incompatible, "rank is 4, expected at most 3", "pissa",
          {"fc", LayerKind::linear, 4, 1});
  refuses(ErrorKind::incompatible, "expected more than 0", "pissa",
          {"fc", LayerKind::linear, 2, 0});
  first_factors(change_of("olora"), {"fc", LayerKind::linear, 3, 0}, weight);
  AdapterConfig config;
  for (const char* init : {"corda", "loftq", "lora_ga"}) {
    config.init_lora_weights = Json(init);
    require_error(ErrorKind::unsupported, init, [&] { base_change_of(config); });
  }
  config.init_lora_weights = Json("gaussian");
  REQUIRE_FALSE(base_change_of(config));
}

TEST_CASE("the names of --init are those of PEFT where PEFT has one") {
  REQUIRE(init_lora_weights_of("default") == Json(true));
  REQUIRE(init_lora_weights_of("zero") == Json(true));
  for (const char* init : {"gaussian", "orthogonal", "pissa", "pissa_niter_16", "olora"})
    REQUIRE(init_lora_weights_of(init) == Json(init));
  for (const char* init : {"", "pissa_niter_", "pissa_niter_x", "pissa_niter_99999999", "corda"})
    REQUIRE_FALSE(init_lora_weights_of(init));
}

TEST_CASE("a model starts as its base with every initialisation, and a file gives it again") {
  const TrainFixture fixture;
  for (const char* init : {"pissa", "pissa_niter_2", "olora", "orthogonal"}) {
    INFO(init);
    AdapterConfig config = fixture.config;
    config.rank = 2;
    config.alpha = 3;
    const ModuleList modules = list_modules(fixture.base);
    config = complete_config(config, fixture.base, modules, "base", init);
    const Adapter adapter =
        create_adapter(config, resolve_targets(config, modules, false), fixture.base, init, 0);
    REQUIRE(adapter.tensors.size() == 4);
    require_close(outputs_of(fixture.base, &adapter), outputs_of(fixture.base, nullptr));
    // Without the change of the base the same factors are far off, but for orthogonal ones.
    Adapter plain = adapter;
    plain.config.init_lora_weights = true;
    const float apart = outputs_of(fixture.base, &plain)[0] - outputs_of(fixture.base, nullptr)[0];
    REQUIRE((std::abs(apart) > 1e-3) == (std::string(init) != "orthogonal"));
  }
}

TEST_CASE("training on what PiSSA left of the base gives what a reader of the file computes") {
  TrainFixture fixture;
  fixture.config.rank = 2;
  fixture.config.alpha = 3;
  for (const char* init : {"pissa", "pissa_niter_2", "olora"}) {
    INFO(init);
    TrainOptions options = options_with(fixture, std::string("run-") + init, init);
    TrainSurroundings surroundings = fake_surroundings();
    surroundings.make_model = make_model;
    fixture.train(options, surroundings);
    const Adapter adapter = open_adapter(options.run_dir / "adapter");
    // Random columns are nobody else's: that result is a plain adapter of twice the rank.
    const bool is_plain = std::string(init) == "pissa_niter_2";
    REQUIRE(adapter.config.init_lora_weights == (is_plain ? Json(true) : Json(init)));
    REQUIRE(adapter.config.rank == (is_plain ? 4 : 2));
    REQUIRE(adapter.modules.at(0).scaling == Approx(1.5));
    const Adapter checkpoint = open_adapter(checkpoint_path(options.run_dir, 8));
    require_close(outputs_of(fixture.base, &adapter), outputs_of(fixture.base, &checkpoint));
    // It goes on from the file as from the checkpoint.
    TrainOptions more = fixture.options(std::string("more-") + init);
    more.initial_adapter = &adapter;
    more.adapter_config = nullptr;
    REQUIRE(fixture.train(more, surroundings).steps == 8);
  }
}

TEST_CASE("a plain adapter made of a changed base keeps every scaling") {
  AdapterConfig config;
  config.rank = 4;
  config.alpha = 6;
  config.rank_pattern = {{"fc2", 1}};
  config.alpha_pattern = {{"fc2", 5}};
  config.init_lora_weights = "pissa_niter_3";
  for (const bool is_rslora : {false, true}) {
    config.use_rslora = is_rslora;
    AdapterConfig plain = config;
    const std::string a = kPrefix + "fc2.lora_A.weight", b = kPrefix + "fc2.lora_B.weight";
    TensorMap tensors{{a, random_tensor({1, 5}, 1)}, {b, random_tensor({3, 1}, 2)}};
    const TensorMap first{{a, random_tensor({1, 5}, 3)}, {b, random_tensor({3, 1}, 4)}};
    const at::Tensor expected = at::mm(view_of(tensors[b]), view_of(tensors[a]))
                                    .sub(at::mm(view_of(first.at(b)), view_of(first.at(a))));
    make_plain(plain, tensors, first);
    REQUIRE(is_close(at::mm(view_of(tensors[b]), view_of(tensors[a])), expected));
    REQUIRE(plain.init_lora_weights == Json(true));
    for (const char* path : {"fc1", "fc2"}) {
      const std::int64_t rank = rank_of(config, path);
      REQUIRE(rank_of(plain, path) == 2 * rank);
      REQUIRE(scaling_of(plain, path, 2 * rank) == Approx(scaling_of(config, path, rank)));
    }
  }
}

TEST_CASE("another adapter beside one that changes the base is refused") {
  const TrainFixture fixture;
  const ModuleList modules = list_modules(fixture.base);
  const AdapterConfig config =
      complete_config(fixture.config, fixture.base, modules, "base", "pissa");
  AdapterConfig small = config;
  small.rank = 2;
  const Adapter adapter =
      create_adapter(small, resolve_targets(small, modules, false), fixture.base, "pissa", 0);
  ModelOptions options;
  options.base = &fixture.base;
  options.adapters = {&adapter, &adapter};
  require_error(ErrorKind::unsupported, "changes the base of the others",
                [&] { make_model(options); });
}

namespace {

Checkpoint llama_base(bool is_tied) {
  Checkpoint base;
  base.config = parse_model_config(
      parse_json(std::string(R"({"model_type": "llama", "vocab_size": 6, "hidden_size": 4,
                     "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1,
                     "max_position_embeddings": 8, "rms_norm_eps": 1e-5, "tie_word_embeddings": )") +
                     (is_tied ? "true}" : "false}"),
                 "config"),
      "config");
  base.tensors["model.embed_tokens.weight"] = random_tensor({6, 4}, 1);
  if (is_tied)
    base.aliases["lm_head.weight"] = "model.embed_tokens.weight";
  else
    base.tensors["lm_head.weight"] = random_tensor({6, 4}, 2);
  return base;
}

TensorMap token_rows(const Json& indices, const Checkpoint& base, ResolvedTargets targets = {}) {
  AdapterConfig config;
  config.other["trainable_token_indices"] = indices;
  TensorMap tensors;
  add_token_rows(tensors, config, targets, base, Compute::base);
  return tensors;
}

}  // namespace

TEST_CASE("trainable tokens start as the rows of the input embedding") {
  for (const bool is_tied : {true, false}) {
    const Checkpoint base = llama_base(is_tied);
    const TensorMap tensors = token_rows(JsonArray{5, 2}, base);
    REQUIRE(tensors.size() == 1);
    const auto& [key, rows] = *tensors.begin();
    REQUIRE(key == kPrefix + "model.embed_tokens.token_adapter.trainable_tokens_delta");
    REQUIRE(rows.shape == std::vector<std::int64_t>{2, 4});
    const std::vector<float> table = base.tensors.at("model.embed_tokens.weight").to_f32();
    REQUIRE(rows.to_f32()[0] == table[20]);
    REQUIRE(rows.to_f32()[7] == table[11]);
  }
}

TEST_CASE("an object of trainable tokens names the tables") {
  const Checkpoint base = llama_base(false);
  const Json both = JsonObject{{"embed_tokens", JsonArray{1}}, {"lm_head", JsonArray{1, 4}}};
  const TensorMap tensors = token_rows(both, base);
  REQUIRE(tensors.size() == 2);
  REQUIRE(tensors.at(kPrefix + "lm_head.token_adapter.trainable_tokens_delta").shape[0] == 2);
  require_error(ErrorKind::usage, "names wte", [&] {
    token_rows(JsonObject{{"wte", JsonArray{1}}}, base);
  });
}

TEST_CASE("tokens that cannot be trained are refused") {
  const Checkpoint base = llama_base(true);
  require_error(ErrorKind::usage, "token 6 cannot be trained: model.embed_tokens has 6 rows",
                [&] { token_rows(JsonArray{6}, base); });
  require_error(ErrorKind::usage, "token 3 is given twice", [&] {
    token_rows(JsonArray{3, 3}, base);
  });
  ResolvedTargets targets;
  ModuleInfo embedding;
  embedding.module_path = "model.embed_tokens";
  targets.lora = {embedding};
  require_error(ErrorKind::usage, "is in target_modules and has trainable tokens",
                [&] { token_rows(JsonArray{3}, base, targets); });
  std::swap(targets.lora, targets.saved);
  require_error(ErrorKind::usage, "is in modules_to_save and has trainable tokens",
                [&] { token_rows(JsonArray{3}, base, targets); });
}

TEST_CASE("a head tied to the embedding keeps its first factors") {
  const Checkpoint base = llama_base(true);
  ResolvedTargets targets;
  ModuleInfo head;
  head.module_path = "lm_head";
  head.kind = LayerKind::linear;
  head.in_features = 4;
  head.out_features = 6;
  targets.lora = {head};
  AdapterConfig config;
  config.rank = 2;
  config.init_lora_weights = "pissa";
  require_error(ErrorKind::unsupported, "shares its weight with the embedding",
                [&] { create_adapter(config, targets, base, "pissa", 0); });
  const Checkpoint untied = llama_base(false);
  REQUIRE(create_adapter(config, targets, untied, "pissa", 0).tensors.size() == 2);
}
