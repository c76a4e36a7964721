#include "engine/train_fixtures.h"
//
#include <algorithm>
#include <cmath>
#include <set>

#include "engine/train/adapter_init.h"
#include "lora/adapter/targets.h"

using namespace lora;
using namespace lora::engine;
using namespace lora::testing;

namespace {

struct Moments {
  double mean = 0, deviation = 0, largest = 0;
};

Moments moments_of(const Tensor& tensor) {
  Moments result;
  const std::vector<double> values = tensor.to_f64();
  for (const double value : values) {
    result.mean += value / static_cast<double>(values.size());
    result.largest = std::max(result.largest, std::abs(value));
  }
  for (const double value : values)
    result.deviation += (value - result.mean) * (value - result.mean);
  result.deviation = std::sqrt(result.deviation / static_cast<double>(values.size()));
  return result;
}

ResolvedTargets one_linear(std::int64_t in, std::int64_t out) {
  ResolvedTargets targets;
  ModuleInfo module;
  module.module_path = "layer";
  module.kind = LayerKind::linear;
  module.in_features = in;
  module.out_features = out;
  targets.lora = {module};
  return targets;
}

Adapter create(const std::string& init, std::uint64_t seed = 0) {
  AdapterConfig config;
  config.rank = 16;
  config.target_modules = std::vector<std::string>{"layer"};
  return create_adapter(config, one_linear(400, 300), Checkpoint{}, init, seed);
}

const Tensor& a_of(const Adapter& adapter) {
  return adapter.tensors.at("base_model.model.layer.lora_A.weight");
}
const Tensor& b_of(const Adapter& adapter) {
  return adapter.tensors.at("base_model.model.layer.lora_B.weight");
}

std::set<std::string> keys_of(const Adapter& adapter) {
  std::set<std::string> keys;
  for (const auto& [key, tensor] : adapter.tensors)
    keys.insert(key.substr(std::string("base_model.model.").size()));
  return keys;
}

}  // namespace

TEST_CASE("default factors are PEFT's: A uniform within 1/sqrt(in), B zero") {
  const Adapter adapter = create("default");
  REQUIRE(a_of(adapter).shape == std::vector<std::int64_t>{16, 400});
  REQUIRE(b_of(adapter).shape == std::vector<std::int64_t>{300, 16});
  const Moments a = moments_of(a_of(adapter));
  REQUIRE(a.largest <= 0.05);
  REQUIRE(a.largest > 0.0499);
  REQUIRE(a.mean == Approx(0).margin(0.002));
  REQUIRE(a.deviation == Approx(0.05 / std::sqrt(3.0)).epsilon(0.03));
  REQUIRE(moments_of(b_of(adapter)).largest == 0);
}

TEST_CASE("gaussian factors are PEFT's: A normal with deviation 1/rank, B zero") {
  const Adapter adapter = create("gaussian");
  REQUIRE(moments_of(a_of(adapter)).deviation == Approx(1.0 / 16).epsilon(0.03));
  REQUIRE(moments_of(a_of(adapter)).largest > 3.0 / 16);
  REQUIRE(moments_of(b_of(adapter)).largest == 0);
}

TEST_CASE("zero factors start as a no-op that can still learn") {
  const Adapter adapter = create("zero");
  REQUIRE(moments_of(a_of(adapter)).largest == 0);
  REQUIRE(moments_of(b_of(adapter)).largest <= 0.25);
  REQUIRE(moments_of(b_of(adapter)).deviation == Approx(0.25 / std::sqrt(3.0)).epsilon(0.03));
}

TEST_CASE("factors depend on seed and name, not on what else is adapted") {
  const Adapter alone = create("default");
  ResolvedTargets targets = one_linear(400, 300);
  ModuleInfo other = targets.lora[0];
  other.module_path = "aaa";
  targets.lora.insert(targets.lora.begin(), other);
  AdapterConfig config;
  config.rank = 16;
  const Adapter both = create_adapter(config, targets, Checkpoint{}, "default", 0);
  REQUIRE(a_of(both).to_f32() == a_of(alone).to_f32());
  REQUIRE(both.tensors.at("base_model.model.aaa.lora_A.weight").to_f32() != a_of(alone).to_f32());
  REQUIRE(a_of(create("default", 1)).to_f32() != a_of(alone).to_f32());
}

TEST_CASE("rank patterns set the rank module by module") {
  AdapterConfig config;
  config.rank = 16;
  config.rank_pattern = {{"layer", 3}};
  const Adapter adapter = create_adapter(config, one_linear(400, 300), Checkpoint{}, "default", 0);
  REQUIRE(a_of(adapter).shape == std::vector<std::int64_t>{3, 400});
}

TEST_CASE("biases and saved modules are copied from the base under PEFT's keys") {
  const TrainFixture fixture;
  const ModuleList modules = list_modules(fixture.base);
  AdapterConfig config;
  config.target_modules = std::vector<std::string>{"fc1"};
  const auto keys = [&] {
    return keys_of(create_adapter(config, resolve_targets(config, modules, false), fixture.base,
                                  "default", 0));
  };
  config.bias = BiasMode::lora_only;
  REQUIRE(keys() ==
          std::set<std::string>{"fc1.lora_A.weight", "fc1.lora_B.weight", "fc1.base_layer.bias"});
  config.bias = BiasMode::all;
  REQUIRE(keys() == std::set<std::string>{"fc1.lora_A.weight", "fc1.lora_B.weight",
                                          "fc1.base_layer.bias", "fc2.bias"});
  config.bias = BiasMode::none;
  config.modules_to_save = {"fc2"};
  REQUIRE(keys() == std::set<std::string>{"fc1.lora_A.weight", "fc1.lora_B.weight", "fc2.weight",
                                          "fc2.bias"});
  const Adapter adapter =
      create_adapter(config, resolve_targets(config, modules, false), fixture.base, "default", 0);
  REQUIRE(adapter.replacements.at("fc2.weight").to_f32() ==
          fixture.base.find("fc2.weight")->to_f32());
}

TEST_CASE("a configuration is completed as get_peft_model would for a custom model") {
  const TrainFixture fixture;
  AdapterConfig config;
  config.target_modules = std::string("all-linear");
  const AdapterConfig complete =
      complete_config(config, fixture.base, list_modules(fixture.base), "path/of/base", "gaussian");
  REQUIRE(std::get<std::vector<std::string>>(complete.target_modules) ==
          std::vector<std::string>{"fc1", "fc2"});
  REQUIRE_FALSE(complete.base_model_name_or_path);
  REQUIRE_FALSE(complete.task_type);
  REQUIRE(complete.peft_version == "0.21.2");
  REQUIRE(complete.init_lora_weights == Json("gaussian"));
}

TEST_CASE("a configuration is completed for a decoder") {
  Checkpoint base;
  base.config =
      parse_model_config(parse_json(R"({"model_type": "llama", "vocab_size": 32, "hidden_size": 8,
                     "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                     "max_position_embeddings": 64, "rms_norm_eps": 1e-5})",
                                    "config"),
                         "config");
  const AdapterConfig complete = complete_config({}, base, {}, "path/of/base", "default");
  REQUIRE(std::get<std::vector<std::string>>(complete.target_modules) ==
          std::vector<std::string>{"q_proj", "v_proj"});
  REQUIRE(complete.base_model_name_or_path == "path/of/base");
  REQUIRE(complete.task_type == "CAUSAL_LM");
  REQUIRE(complete.init_lora_weights == Json(true));
}

TEST_CASE("what cannot be trained here is refused by name") {
  const TrainFixture fixture;
  const ModuleList modules = list_modules(fixture.base);
  const auto refuses = [&](ErrorKind kind, const char* part, auto change) {
    AdapterConfig config;
    config.target_modules = std::vector<std::string>{"fc1"};
    change(config);
    require_error(kind, part,
                  [&] { complete_config(config, fixture.base, modules, "base", "default"); });
  };
  refuses(ErrorKind::unsupported, "use_dora", [](AdapterConfig& c) { c.use_dora = true; });
  refuses(ErrorKind::unsupported, "SEQ_CLS", [](AdapterConfig& c) { c.task_type = "SEQ_CLS"; });
  refuses(ErrorKind::unsupported, "TOKEN_CLS", [](AdapterConfig& c) { c.task_type = "TOKEN_CLS"; });
  refuses(ErrorKind::unsupported, "ensure_weight_tying",
          [](AdapterConfig& c) { c.other["ensure_weight_tying"] = true; });
  refuses(ErrorKind::usage, "layers_to_transform cannot be used", [](AdapterConfig& c) {
    c.target_modules = std::string("fc1");
    c.layers_to_transform = {0};
  });
  refuses(ErrorKind::usage, "--rank is 0", [](AdapterConfig& c) { c.rank = 0; });
  refuses(ErrorKind::usage, "--dropout", [](AdapterConfig& c) { c.dropout = 1; });
}

TEST_CASE("LoRA on what the engine has no trainable layer for is refused by name and kind") {
  const auto refuses = [](LayerKind kind, const char* part) {
    ResolvedTargets targets = one_linear(400, 300);
    ModuleInfo other = targets.lora[0];
    other.module_path = "block.other";
    other.kind = kind;
    targets.lora.push_back(other);
    require_error(ErrorKind::unsupported, part,
                  [&] { create_adapter({}, targets, Checkpoint{}, "default", 0); });
  };
  refuses(LayerKind::convolution, "block.other is a convolution, expected linear layers");
  refuses(LayerKind::attention, "block.other is a fused attention (nn.MultiheadAttention)");
  refuses(LayerKind::parameter, "block.other is a bare parameter");
  refuses(LayerKind::norm, "block.other is a norm");
  refuses(LayerKind::other, "block.other is no layer with a matrix");
  ResolvedTargets targets = one_linear(400, 300);
  targets.parameters = {{"mlp.experts", "mlp.experts.down_proj", {2, 4, 3}}};
  require_error(ErrorKind::unsupported, "mlp.experts.down_proj is a bare parameter",
                [&] { create_adapter({}, targets, Checkpoint{}, "default", 0); });
  for (const LayerKind kind : {LayerKind::linear, LayerKind::conv1d, LayerKind::embedding}) {
    targets = one_linear(400, 300);
    targets.lora[0].kind = kind;
    REQUIRE(create_adapter({}, targets, Checkpoint{}, "default", 0).tensors.size() == 2);
  }
}

TEST_CASE("a MiCA adapter is not continued: its B is not trained") {
  Adapter adapter;
  adapter.config.init_lora_weights = Json("mica");
  require_error(ErrorKind::unsupported, "'mica' keeps B", [&] { check_continuable(adapter); });
}

TEST_CASE("an adapter whose base its weights alone do not tell is not continued") {
  AdapterConfig config;
  config.init_lora_weights = Json("corda");
  Adapter adapter;
  adapter.config = config;
  require_error(ErrorKind::unsupported, "\"corda\"", [&] { check_continuable(adapter); });
  for (const char* known : {"pissa", "pissa_niter_4", "olora"}) {
    adapter.config.init_lora_weights = Json(known);
    check_continuable(adapter);
  }
  adapter.config.init_lora_weights = true;
  check_continuable(adapter);
  adapter.problems.push_back({KeyProblem::Kind::unpaired, "x.lora_A.weight", "x has no lora_B"});
  require_error(ErrorKind::incompatible, "x has no lora_B", [&] { check_continuable(adapter); });
}

namespace {

Checkpoint base_of(const std::string& config) {
  Checkpoint base;
  base.config = parse_model_config(parse_json(config, "config"), "config");
  return base;
}

}  // namespace

TEST_CASE("a classifier's head is trained in full") {
  const Checkpoint base = base_of(
      R"({"model_type": "bert", "architectures": ["BertForSequenceClassification"],
          "num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2})");
  const AdapterConfig complete = complete_config({}, base, list_modules(base), "base", "default");
  REQUIRE(complete.task_type == "SEQ_CLS");
  REQUIRE(std::get<std::vector<std::string>>(complete.target_modules) ==
          std::vector<std::string>{"query", "value"});
  REQUIRE(std::count(complete.modules_to_save.begin(), complete.modules_to_save.end(),
                     "classifier") == 1);
}

TEST_CASE("fan_in_fan_out follows the layers that are targeted") {
  const Checkpoint base =
      base_of(R"({"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 2})");
  const ModuleList modules = list_modules(base);
  const auto layout_of = [&](std::vector<std::string> names) {
    AdapterConfig config;
    config.target_modules = std::move(names);
    set_weight_layout(config, resolve_targets(config, modules, true));
    return config.fan_in_fan_out;
  };
  REQUIRE(layout_of({"c_attn"}));
  REQUIRE(layout_of({"c_attn", "wte"}));
  REQUIRE_FALSE(layout_of({"lm_head"}));
  REQUIRE_FALSE(layout_of({"c_attn", "lm_head"}));
}

TEST_CASE("magnitudes start as the norms of each output's weights, a lora_bias as zero") {
  const auto starts = [](LayerKind kind, std::vector<std::int64_t> shape, bool is_dora) {
    ResolvedTargets targets = one_linear(2, 3);
    targets.lora[0].kind = kind;
    Checkpoint base;
    base.tensors["layer.weight"] =
        Tensor::from_f32(std::move(shape), std::vector<float>{3, 4, 0, 5, 12, 1});
    AdapterConfig config;
    config.use_dora = is_dora;
    config.lora_bias = !is_dora;
    const Adapter adapter = create_adapter(config, targets, base, "default", 0);
    const std::string name = is_dora ? "lora_magnitude_vector" : "lora_B.bias";
    return adapter.tensors.at("base_model.model.layer." + name).to_f32();
  };
  REQUIRE(starts(LayerKind::linear, {3, 2}, true) ==
          std::vector<float>{5, 5, static_cast<float>(std::sqrt(145.0))});
  REQUIRE(starts(LayerKind::conv1d, {2, 3}, true) ==
          std::vector<float>{static_cast<float>(std::sqrt(34.0)),
                             static_cast<float>(std::sqrt(160.0)), 1});
  REQUIRE(starts(LayerKind::linear, {3, 2}, false) == std::vector<float>{0, 0, 0});
}
