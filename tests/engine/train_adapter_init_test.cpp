#include "engine/train_fixtures.h"
//
#include <algorithm>
#include <cmath>
#include <set>

#include "engine/train/adapter_init.h"

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
  refuses(ErrorKind::unsupported, "lora_bias", [](AdapterConfig& c) { c.lora_bias = true; });
  refuses(ErrorKind::unsupported, "SEQ_CLS", [](AdapterConfig& c) { c.task_type = "SEQ_CLS"; });
  refuses(ErrorKind::usage, "--rank is 0", [](AdapterConfig& c) { c.rank = 0; });
  refuses(ErrorKind::usage, "--dropout", [](AdapterConfig& c) { c.dropout = 1; });
}

TEST_CASE("an adapter whose initialisation rewrote its base is not continued") {
  AdapterConfig config;
  config.init_lora_weights = Json("pissa_niter_4");
  Adapter adapter;
  adapter.config = config;
  require_error(ErrorKind::unsupported, "pissa_niter_4", [&] { check_continuable(adapter); });
  adapter.config.init_lora_weights = true;
  check_continuable(adapter);
  adapter.problems.push_back({KeyProblem::Kind::unpaired, "x.lora_A.weight", "x has no lora_B"});
  require_error(ErrorKind::incompatible, "x has no lora_B", [&] { check_continuable(adapter); });
}
