#include "adapter/golden.h"
#include "lora/adapter/config.h"
#include "support/testing.h"

namespace lora {
namespace {

using testing::config_of;
using testing::require_error;

struct Rejection {
  const char* members;
  const char* part;
};

TEST_CASE("a field of the wrong type or range is refused with its name and value") {
  const Rejection rejections[] = {
      {R"({"r": 3.9})", "\"r\" is 3.9 (number), expected an integer from 1"},
      {R"({"r": 0})", "\"r\" is 0"},
      {R"({"r": -1})", "\"r\" is -1"},
      {R"({"r": 2147483648})", "\"r\" is 2147483648"},
      {R"({"r": null})", "\"r\" is null"},
      {R"({"r": true})", "\"r\" is true (boolean)"},
      {R"({"r": "8"})", "\"r\" is \"8\" (string)"},
      {R"({"lora_alpha": "16"})", "\"lora_alpha\" is \"16\" (string), expected a finite number"},
      {R"({"lora_alpha": [16]})", "\"lora_alpha\""},
      {R"({"lora_dropout": 1.0})", "\"lora_dropout\" is 1.0 (number), expected a number in [0, 1)"},
      {R"({"lora_dropout": -0.1})", "\"lora_dropout\" is -0.1"},
      {R"({"use_dora": 1})", "\"use_dora\" is 1 (integer), expected true or false"},
      {R"({"use_rslora": null})", "\"use_rslora\" is null"},
      {R"({"bias": "some"})", "\"bias\" is \"some\" (string), expected none or all or lora_only"},
      {R"({"target_modules": 3})", "\"target_modules\" is 3"},
      {R"({"target_modules": ["a", 3]})", "\"target_modules\" is 3 (integer), expected strings"},
      {R"({"exclude_modules": {}})", "\"exclude_modules\""},
      {R"({"modules_to_save": "head"})", "\"modules_to_save\" is \"head\""},
      {R"({"layers_to_transform": -1})", "\"layers_to_transform\" is -1"},
      {R"({"layers_to_transform": [1.5]})", "\"layers_to_transform\" is 1.5"},
      {R"({"layers_to_transform": "1"})", "\"layers_to_transform\""},
      {R"({"layers_pattern": 3})", "\"layers_pattern\" is 3"},
      {R"({"rank_pattern": {"a": 2.0}})", "\"rank_pattern[a]\" is 2.0"},
      {R"({"rank_pattern": {"a": 0}})", "\"rank_pattern[a]\" is 0"},
      {R"({"rank_pattern": []})", "\"rank_pattern\" is []"},
      {R"({"alpha_pattern": {"a": "x"}})", "\"alpha_pattern[a]\" is \"x\""},
      {R"({"init_lora_weights": 1})", "\"init_lora_weights\" is 1"},
      {R"({"auto_mapping": "x"})", "\"auto_mapping\" is \"x\""},
      {R"({"task_type": 1})", "\"task_type\" is 1"},
      {R"({"revision": false})", "\"revision\" is false"},
      {R"({"ensure_weight_tying": "yes"})", "\"ensure_weight_tying\""},
      {R"({"qalora_group_size": 0})", "\"qalora_group_size\" is 0"},
      {R"({"target_parameters": "experts"})", "\"target_parameters\""},
      {R"({"trainable_token_indices": [-1]})", "\"trainable_token_indices\""},
      {R"({"trainable_token_indices": {"e": 1}})", "\"trainable_token_indices\""},
      {R"({"layer_replication": [[0, 1, 2]]})", "\"layer_replication\""},
      {R"({"alora_invocation_tokens": "x"})", "\"alora_invocation_tokens\""},
      {R"({"eva_config": 3})", "\"eva_config\" is 3"},
  };
  for (const Rejection& rejection : rejections) {
    INFO(rejection.members);
    require_error(ErrorKind::malformed, rejection.part, [&] { config_of(rejection.members); });
  }
}

TEST_CASE("a number too large for a double is refused") {
  require_error(ErrorKind::malformed, "", [] { config_of(R"({"lora_alpha": 1e999})"); });
}

TEST_CASE("fields that PEFT refuses together are refused") {
  const Rejection rejections[] = {
      {R"({"task_type": "CHAT"})", "task_type is \"CHAT\""},
      {R"({"target_modules": "q", "layers_to_transform": [1]})", "layers_to_transform cannot"},
      {R"({"target_modules": "q", "layers_pattern": "h"})", "layers_pattern cannot"},
      {R"({"target_modules": ["q"], "layers_pattern": "h"})", "without layers_to_transform"},
      {R"({"lora_bias": true, "use_dora": true})", "lora_bias and use_dora"},
      {R"({"lora_bias": true, "init_lora_weights": "gaussian"})", "init_lora_weights is a string"},
  };
  for (const Rejection& rejection : rejections) {
    INFO(rejection.members);
    require_error(ErrorKind::malformed, rejection.part, [&] { config_of(rejection.members); });
  }
}

TEST_CASE("another kind of adapter is unsupported, a document without peft_type malformed") {
  const auto parse = [](const char* text) {
    return parse_adapter_config(parse_json(text, "a.json"), "a.json");
  };
  require_error(ErrorKind::unsupported, "\"IA3\", expected \"LORA\"",
                [&] { parse(R"({"peft_type": "IA3"})"); });
  require_error(ErrorKind::malformed, "\"peft_type\" is missing", [&] { parse(R"({"r": 8})"); });
  require_error(ErrorKind::malformed, "found array, expected an object", [&] { parse("[]"); });
}

TEST_CASE("the file is named by the error") {
  const testing::TempDir folder;
  testing::write_file(folder / "adapter_config.json", R"({"peft_type": "LORA", "r": 0})");
  try {
    read_adapter_config(folder / "adapter_config.json");
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.file() == (folder / "adapter_config.json").string());
  }
}

}  // namespace
}  // namespace lora
