#include "lora/adapter/keys.h"

#include "adapter/golden.h"
#include "support/testing.h"

namespace lora {
namespace {

struct Expected {
  const char* name;
  KeyRole role;
  const char* module_path;
  const char* parameter;
  const char* peft_key;
  const char* base_name;
};

TEST_CASE("names are taken apart by structure") {
  const Expected rows[] = {
      {"base_model.model.fc1.lora_A.weight", KeyRole::lora_a, "fc1", "",
       "base_model.model.fc1.lora_A.weight", "fc1.weight"},
      {"base_model.model.fc1.lora_B.default.weight", KeyRole::lora_b, "fc1", "",
       "base_model.model.fc1.lora_B.weight", "fc1.weight"},
      {"base_model.model.fc1.lora_B.default.bias", KeyRole::lora_b_bias, "fc1", "",
       "base_model.model.fc1.lora_B.bias", "fc1.bias"},
      {"fc1.lora_A.weight", KeyRole::lora_a, "fc1", "", "base_model.model.fc1.lora_A.weight",
       "fc1.weight"},
      {"base_model.model.e.lora_embedding_A", KeyRole::embedding_a, "e", "",
       "base_model.model.e.lora_embedding_A", "e.weight"},
      {"base_model.model.e.lora_embedding_B.other", KeyRole::embedding_b, "e", "",
       "base_model.model.e.lora_embedding_B", "e.weight"},
      {"base_model.model.q.lora_magnitude_vector", KeyRole::magnitude, "q", "",
       "base_model.model.q.lora_magnitude_vector", "q.weight"},
      {"base_model.model.q.lora_magnitude_vector.weight", KeyRole::magnitude, "q", "",
       "base_model.model.q.lora_magnitude_vector", "q.weight"},
      {"base_model.model.q.lora_magnitude_vector.default.weight", KeyRole::magnitude, "q", "",
       "base_model.model.q.lora_magnitude_vector", "q.weight"},
      {"base_model.model.e.token_adapter.trainable_tokens_delta", KeyRole::trainable_tokens, "e",
       "", "base_model.model.e.token_adapter.trainable_tokens_delta", "e.weight"},
      {"base_model.model.e.token_adapter.trainable_tokens_delta.default", KeyRole::trainable_tokens,
       "e", "", "base_model.model.e.token_adapter.trainable_tokens_delta", "e.weight"},
      {"base_model.model.e.token_adapter.trainable_tokens_original.default", KeyRole::original, "e",
       "token_adapter.trainable_tokens_original",
       "base_model.model.e.token_adapter.trainable_tokens_original", "e.weight"},
      {"base_model.model.e.token_adapter.base_layer.weight", KeyRole::base_layer, "e", "weight",
       "base_model.model.e.base_layer.weight", "e.weight"},
      {"base_model.model.fc1.base_layer.bias", KeyRole::base_layer, "fc1", "bias",
       "base_model.model.fc1.base_layer.bias", "fc1.bias"},
      {"base_model.model.score.weight", KeyRole::saved, "score", "weight",
       "base_model.model.score.weight", "score.weight"},
      {"base_model.model.score.modules_to_save.default.weight", KeyRole::saved, "score", "weight",
       "base_model.model.score.weight", "score.weight"},
      {"base_model.model.score.modules_to_save.bias", KeyRole::saved, "score", "bias",
       "base_model.model.score.bias", "score.bias"},
      {"base_model.model.head.modules_to_save.default.dense.weight", KeyRole::saved, "head.dense",
       "weight", "base_model.model.head.dense.weight", "head.dense.weight"},
      {"base_model.model.head.original_module.dense.bias", KeyRole::original, "head",
       "original_module.dense.bias", "base_model.model.head.original_module.dense.bias",
       "head.dense.bias"},
      {"base_model.model.q.lora_diag.default", KeyRole::variant, "q", "lora_diag",
       "base_model.model.q.lora_diag", "q.weight"},
      {"base_model.model.q.lora_monteclora_sampler.default.std_prior", KeyRole::variant, "q",
       "lora_monteclora_sampler.std_prior", "base_model.model.q.lora_monteclora_sampler.std_prior",
       "q.weight"},
      {"base_model.model.q.lora_monteclora_sampler.std_prior", KeyRole::variant, "q",
       "lora_monteclora_sampler.std_prior", "base_model.model.q.lora_monteclora_sampler.std_prior",
       "q.weight"},
      {"model.layers.0.mlp.up_proj.weight", KeyRole::saved, "model.layers.0.mlp.up_proj", "weight",
       "base_model.model.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"},
      {"weight", KeyRole::saved, "", "weight", "base_model.model.weight", "weight"},
  };
  for (const Expected& row : rows) {
    INFO(row.name);
    const ParsedKey key = parse_key(row.name);
    CHECK(key.role == row.role);
    CHECK(key.module_path == row.module_path);
    CHECK(key.parameter == row.parameter);
    CHECK(to_peft_key(key) == row.peft_key);
    CHECK(to_base_name(key) == row.base_name);
    CHECK(to_peft_key(parse_key(row.peft_key)) == row.peft_key);
  }
}

TEST_CASE("modules may be called like parts of a key") {
  const auto path_of = [](const char* name) { return parse_key(name).module_path; };
  CHECK(path_of("base_model.model.weight.lora_A.weight") == "weight");
  CHECK(path_of("base_model.model.x.lora_A.lora_B.weight") == "x.lora_A");
  CHECK(parse_key("base_model.model.x.lora_A.lora_B.weight").role == KeyRole::lora_b);
  CHECK(path_of("base_model.model.x.lora_A.lora_A.default.weight") == "x.lora_A");
  CHECK(path_of("base_model.model.default.lora_A.default.weight") == "default");
  CHECK(path_of("base_model.model.my_lora_A_weight.lora_B.weight") == "my_lora_A_weight");
  CHECK(path_of("base_model.model.bias.lora_B.bias") == "bias");
  CHECK(parse_key("base_model.model.lora_A.weight").role == KeyRole::saved);
  CHECK(parse_key("base_model.model.x.lora_proj.weight").role == KeyRole::saved);
}

TEST_CASE("the adapter's name is taken out and remembered") {
  CHECK(parse_key("base_model.model.q.lora_A.default.weight").adapter_name == "default");
  CHECK(parse_key("base_model.model.q.lora_A.my-task.weight").adapter_name == "my-task");
  CHECK(parse_key("base_model.model.q.lora_embedding_A.x").adapter_name == "x");
  CHECK(parse_key("base_model.model.q.modules_to_save.x.weight").adapter_name == "x");
  CHECK(parse_key("base_model.model.q.lora_A.weight").adapter_name.empty());
  CHECK(parse_key("base_model.model.q.modules_to_save.weight").adapter_name.empty());
}

TEST_CASE("wrappers are stripped where they can be, `module` only at the front") {
  struct Wrapped {
    const char* name;
    std::vector<std::string> wrappers;
    const char* module_path;
    bool has_prefix;
  };
  const Wrapped rows[] = {
      {"module.base_model.model.q.lora_A.weight", {"module"}, "q", true},
      {"_orig_mod.base_model.model.q.lora_A.weight", {"_orig_mod"}, "q", true},
      {"base_model.model._orig_mod.q.lora_A.weight", {"_orig_mod"}, "q", true},
      {"base_model.model.module.q.lora_A.weight", {"module"}, "q", true},
      {"_orig_mod.module.base_model.model.a._fsdp_wrapped_module.q.lora_A.default.weight",
       {"_orig_mod", "_fsdp_wrapped_module", "module"},
       "a.q",
       true},
      {"module.q.lora_A.weight", {"module"}, "q", false},
      {"base_model.model.a.module.q.lora_A.weight", {}, "a.module.q", true},
      {"a.module.q.lora_A.weight", {}, "a.module.q", false},
      {"base_model.model.module.module.q.lora_A.weight", {"module", "module"}, "q", true},
      {"base_model.modelx.q.lora_A.weight", {}, "base_model.modelx.q", false},
  };
  for (const Wrapped& row : rows) {
    INFO(row.name);
    const ParsedKey key = parse_key(row.name);
    CHECK(key.wrappers == row.wrappers);
    CHECK(key.module_path == row.module_path);
    CHECK(key.has_peft_prefix == row.has_prefix);
  }
}

TEST_CASE("sites nested in one module stay apart and name one base parameter") {
  const ParsedKey outer = parse_key("base_model.model.experts.lora_A.weight");
  const ParsedKey inner = parse_key("base_model.model.experts.base_layer.lora_A.weight");
  CHECK(outer.module_path != inner.module_path);
  CHECK(to_peft_key(inner) == "base_model.model.experts.base_layer.lora_A.weight");
  CHECK(to_base_name(parse_key("base_model.model.attn.base_layer.out_proj.lora_B.weight")) ==
        "attn.out_proj.weight");
}

TEST_CASE("PEFT's in-memory names become the names it saves") {
  const Json document = read_json_file(testing::golden("adapters/mlp_state_keys.json"));
  std::vector<std::string> lora;
  std::vector<std::string> base;
  for (const Json& name : *document.as_array()) {
    const ParsedKey key = parse_key(*name.as_string());
    (key.is_lora() ? lora : base).push_back(key.is_lora() ? to_peft_key(key) : to_base_name(key));
  }
  CHECK(lora == std::vector<std::string>{
                    "base_model.model.fc1.lora_A.weight", "base_model.model.fc1.lora_B.weight",
                    "base_model.model.fc2.lora_A.weight", "base_model.model.fc2.lora_B.weight"});
  CHECK(base == std::vector<std::string>{"fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight"});
}

TEST_CASE("odd names are taken apart without harm") {
  for (const char* name : {"", ".", "..", "lora_A", ".lora_A.weight", "base_model.model.",
                           "base_model.model", "module", "module.", "_orig_mod", "modules_to_save",
                           "a.modules_to_save.", "a..lora_B.bias", "base_layer.weight"}) {
    INFO(name);
    const ParsedKey key = parse_key(name);
    CHECK(to_peft_key(key) == to_peft_key(parse_key(to_peft_key(key))));
  }
}

TEST_CASE("cleaning is idempotent, also for a module called like a wrapper") {
  for (const char* name : {"base_model.model.module.module.x.lora_A.weight",
                           "module.module.x.weight", "base_model.model.module.module.weight"}) {
    const ParsedKey key = parse_key(name);
    REQUIRE(key.wrappers.size() == 2);
    REQUIRE(to_peft_key(parse_key(to_peft_key(key))) == to_peft_key(key));
  }
  REQUIRE(to_peft_key(parse_key("base_model.model.module.module.x.lora_A.weight")) ==
          "base_model.model.x.lora_A.weight");
  // Every sequence of up to five components that mean something somewhere.
  const std::vector<std::string> parts{"base_model", "model",           "module", "_orig_mod",
                                       "x",          "lora_A",          "weight", "default",
                                       "base_layer", "modules_to_save", "bias"};
  std::vector<std::string> names{""};
  for (int length = 0; length < 5; ++length) {
    std::vector<std::string> longer;
    for (const std::string& name : names)
      for (const std::string& part : parts)
        longer.push_back(name.empty() ? part : name + "." + part);
    for (const std::string& name : longer) {
      const std::string clean = to_peft_key(parse_key(name));
      const ParsedKey again = parse_key(clean);
      if (to_peft_key(again) == clean && again.wrappers.empty()) continue;
      FAIL(name << " becomes " << clean << " and then " << to_peft_key(again));
    }
    names = std::move(longer);
  }
}

}  // namespace
}  // namespace lora
