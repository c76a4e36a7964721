#include "lora/adapter/config.h"

#include "adapter/golden.h"
#include "support/testing.h"

namespace lora {
namespace {

using testing::config_of;
using testing::entries_of;
using testing::golden;
using testing::read_file;

std::string golden_config(const std::string& name) {
  return read_file(golden("configs/" + name + ".json"));
}

/// The values all the small configurations of PEFT's MLP example share.
AdapterConfig mlp_config() {
  AdapterConfig config;
  config.target_modules = std::vector<std::string>{"fc1"};
  config.auto_mapping = JsonObject{{"base_model_class", "MLP"}, {"parent_library", "__main__"}};
  return config;
}

AdapterConfig llama_config(std::vector<std::string> targets) {
  AdapterConfig config;
  config.target_modules = std::move(targets);
  config.task_type = "CAUSAL_LM";
  return config;
}

TEST_CASE("reading and writing a file of PEFT 0.21.2 gives its bytes back") {
  const auto files = entries_of(golden("configs"));
  REQUIRE(files.size() >= 30);
  for (const auto& path : files) {
    INFO(path.filename().string());
    const AdapterConfig config = read_adapter_config(path);
    CHECK(dump_adapter_config(config) == read_file(path));
    CHECK(config.unknown_fields().empty());
    CHECK(config.other.size() == 19);
    CHECK(to_json(config).as_object()->size() == 41);
  }
}

TEST_CASE("a configuration made here is written as PEFT writes the same one") {
  AdapterConfig config = mlp_config();
  std::string expected = "defaults";
  SECTION("defaults") { config.target_modules = std::vector<std::string>{"fc2", "fc1", "fc2"}; }
  SECTION("bias all") {
    config.bias = BiasMode::all;
    expected = "bias_all";
  }
  SECTION("bias lora_only") {
    config.bias = BiasMode::lora_only;
    expected = "bias_lora_only";
  }
  SECTION("gaussian") {
    config.init_lora_weights = "gaussian";
    expected = "gaussian";
  }
  SECTION("init false") {
    config.init_lora_weights = false;
    expected = "init_false";
  }
  SECTION("pissa") {
    config.init_lora_weights = "pissa_niter_4";
    config.rank = 2;
    expected = "pissa";
  }
  SECTION("float alpha") {
    config.alpha = 22.62741699796952;
    expected = "float_alpha";
  }
  SECTION("small dropout") {
    config.dropout = 1e-5;
    expected = "small_dropout";
  }
  SECTION("lora_bias") {
    config.lora_bias = true;
    expected = "lora_bias";
  }
  SECTION("non-ASCII names") {
    config.target_modules = std::vector<std::string>{"rocket🚀", "größe", "出力"};
    config.rank_pattern = {{"größe", 2}};
    config.auto_mapping =
        JsonObject{{"base_model_class", "Foreign"}, {"parent_library", "__main__"}};
    expected = "non_ascii";
  }
  SECTION("task, rank and alpha") {
    config = llama_config({"q_proj", "v_proj"});
    config.rank = 4;
    config.alpha = 16;
    expected = "task";
  }
  SECTION("rslora and dropout") {
    config = llama_config({"v_proj"});
    config.use_rslora = true;
    config.rank = 16;
    config.alpha = 32;
    config.dropout = 0.05;
    expected = "rslora";
  }
  SECTION("dora") {
    config = llama_config({"v_proj"});
    config.use_dora = true;
    expected = "dora";
  }
  SECTION("patterns") {
    config = llama_config({"q_proj", "v_proj"});
    config.rank_pattern = {{"v_proj", 2}, {"^model.layers.0.self_attn.q_proj", 3}};
    config.alpha_pattern = {{"v_proj", 2.5}, {"q_proj", 7}};
    expected = "patterns";
  }
  SECTION("regular expression") {
    config = llama_config({});
    config.target_modules = R"(model\.layers\.\d+\.self_attn\.(q|k)_proj)";
    expected = "regex";
  }
  SECTION("modules_to_save keep their order") {
    config = llama_config({"q_proj"});
    config.modules_to_save = {"lm_head", "embed_tokens"};
    expected = "modules_to_save";
  }
  SECTION("excluded list") {
    config = llama_config({"q_proj", "v_proj"});
    config.exclude_modules =
        std::vector<std::string>{"layers.1.self_attn.v_proj", "layers.0.self_attn.q_proj"};
    expected = "exclude_list";
  }
  SECTION("layers") {
    config = llama_config({"q_proj"});
    config.layers_to_transform = {1};
    config.layers_pattern = {"layers", "h"};
    expected = "layers_pattern_list";
  }
  SECTION("revision") {
    config = llama_config({"q_proj"});
    config.revision = "main";
    expected = "revision";
  }
  CHECK(dump_adapter_config(config) == golden_config(expected));
}

TEST_CASE("a member keeps its spelling until its value changes") {
  AdapterConfig config = config_of(
      R"({"lora_alpha": 16.0, "lora_dropout": 0, "layers_to_transform": 3, "layers_pattern": "h",
          "modules_to_save": [], "target_modules": ["b", "a"], "alpha_pattern": {"a": 2.0}})");
  const Json before = to_json(config);
  CHECK(dump_json(*before.find("lora_alpha")) == "16.0");
  CHECK(dump_json(*before.find("lora_dropout")) == "0");
  CHECK(*before.find("layers_to_transform") == Json(3));
  CHECK(*before.find("layers_pattern") == Json("h"));
  CHECK(*before.find("modules_to_save") == Json(JsonArray()));
  CHECK(dump_json(*before.find("alpha_pattern"), JsonStyle{}) == R"({"a": 2.0})");

  config.alpha = 32;
  config.dropout = 0.5;
  config.layers_to_transform.push_back(4);
  config.modules_to_save = {"head"};
  config.alpha_pattern[0].second = 3;
  const Json after = to_json(config);
  CHECK(dump_json(*after.find("lora_alpha")) == "32");
  CHECK(dump_json(*after.find("lora_dropout")) == "0.5");
  CHECK(*after.find("layers_to_transform") == Json(JsonArray{3, 4}));
  CHECK(*after.find("layers_pattern") == Json("h"));
  CHECK(*after.find("modules_to_save") == Json(JsonArray{"head"}));
  CHECK(*after.find("alpha_pattern") == Json(JsonObject{{"a", 3}}));
}

TEST_CASE("unknown fields are named and survive") {
  const AdapterConfig config =
      config_of(R"({"target_modules": ["a"], "zeta": {"deep": [1, 2.5, null]}, "beta": false})");
  CHECK(config.unknown_fields() == std::vector<std::string>{"beta", "zeta"});
  const Json document = to_json(config);
  CHECK(*document.find("zeta") == parse_json(R"({"deep": [1, 2.5, null]})", "test"));
  CHECK(*document.find("beta") == Json(false));
  CHECK(document.as_object()->size() == 43);
}

TEST_CASE("PEFT fields without a typed member are kept as they were") {
  const AdapterConfig config = config_of(
      R"({"target_modules": ["a"], "trainable_token_indices": {"embed": [3, 1]},
          "layer_replication": [[0, 4], [2, 5]], "ensure_weight_tying": true,
          "inference_mode": false})");
  const Json document = to_json(config);
  CHECK(*document.find("trainable_token_indices") == parse_json(R"({"embed": [3, 1]})", "test"));
  CHECK(*document.find("layer_replication") == parse_json("[[0, 4], [2, 5]]", "test"));
  CHECK(*document.find("ensure_weight_tying") == Json(true));
  CHECK(*document.find("inference_mode") == Json(true));
}

TEST_CASE("a minimal file takes PEFT's defaults") {
  const AdapterConfig config = config_of("{}");
  CHECK(config.rank == 8);
  CHECK(config.alpha == 8);
  CHECK(config.dropout == 0);
  CHECK(config.bias == BiasMode::none);
  CHECK(std::holds_alternative<std::monostate>(config.target_modules));
  CHECK_FALSE(config.peft_version.has_value());
  CHECK(config.init_lora_weights == Json(true));
}

TEST_CASE("the first pattern that matches decides rank and alpha") {
  const AdapterConfig config =
      config_of(R"({"r": 4, "lora_alpha": 8, "rank_pattern": {"layers\\.1\\..*": 6, "q_proj": 2},
                    "alpha_pattern": {"^q_proj": 1, "attn.q_proj": 3}})");
  CHECK(rank_of(config, "m.layers.1.attn.q_proj") == 6);
  CHECK(rank_of(config, "m.layers.0.attn.q_proj") == 2);
  CHECK(rank_of(config, "m.layers.0.attn.xq_proj") == 4);
  CHECK(alpha_of(config, "q_proj") == 1);
  CHECK(alpha_of(config, "m.attn.q_proj") == 3);
  CHECK(alpha_of(config, "m.q_proj") == 8);
  CHECK(scaling_of(config, "m.layers.0.attn.q_proj", 2) == 1.5);
}

TEST_CASE("rsLoRA divides alpha by the root of the rank") {
  const AdapterConfig config = config_of(R"({"lora_alpha": 8, "use_rslora": true})");
  CHECK(scaling_of(config, "q_proj", 16) == 2.0);
}

TEST_CASE("a pattern key that is no expression is refused when it is used") {
  const AdapterConfig config = config_of(R"({"rank_pattern": {"q(": 2}})");
  testing::require_error(ErrorKind::usage, "q(", [&] { rank_of(config, "q"); });
}

TEST_CASE("a version that says how experts lie is not made up on writing") {
  const char* experts = R"({"peft_type": "LORA", "target_parameters": ["experts.down_proj"]})";
  REQUIRE(*to_json(config_of(experts)).find("peft_version") == Json("0.18.1"));
  REQUIRE(*to_json(config_of(R"({"peft_type": "LORA"})")).find("peft_version") == Json("0.21.2"));
}

TEST_CASE(
    "initialisations that change the base are told from those that do not, as PEFT compares") {
  AdapterConfig config;
  REQUIRE(base_changing_init(config).empty());
  for (const char* init : {"pissa", "pissa_niter_16", "corda", "olora", "OLoRA", "loftq"}) {
    config.init_lora_weights = init;
    REQUIRE(base_changing_init(config) == init);
    REQUIRE(changes_base_on_load(config));
  }
  config.init_lora_weights = "lora_ga";
  REQUIRE(base_changing_init(config) == "lora_ga");
  REQUIRE(!changes_base_on_load(config));
  for (const char* init : {"gaussian", "eva", "orthogonal", "mica", "olora_2", "PISSA"}) {
    config.init_lora_weights = init;
    REQUIRE(base_changing_init(config).empty());
    REQUIRE(!changes_base_on_load(config));
  }
  config.init_lora_weights = false;
  REQUIRE(base_changing_init(config).empty());
}

}  // namespace
}  // namespace lora
