#include "lora/adapter/targets.h"

#include "adapter/golden.h"
#include "support/testing.h"

namespace lora {
namespace {

using testing::config_of;
using testing::golden;
using testing::require_error;

struct Model {
  ModuleList modules;
  bool is_transformers = false;
  std::string model_type;
};

LayerKind kind_of(const std::string& name) {
  if (name == "linear") return LayerKind::linear;
  if (name == "conv1d") return LayerKind::conv1d;
  if (name == "embedding") return LayerKind::embedding;
  return name == "norm" ? LayerKind::norm : LayerKind::other;
}

Model model_of(const std::string& name) {
  const Json document = read_json_file(golden("models.json"));
  const Json& recorded = *document.find(name);
  Model model;
  model.is_transformers = *recorded.find("is_transformers")->as_bool();
  if (const std::string* type = recorded.find("model_type")->as_string()) model.model_type = *type;
  for (const Json& item : *recorded.find("modules")->as_array()) {
    ModuleInfo module;
    module.module_path = *item.find("path")->as_string();
    module.class_name = *item.find("class")->as_string();
    module.kind = kind_of(*item.find("kind")->as_string());
    module.is_output_head = *item.find("is_output_head")->as_bool();
    model.modules.push_back(std::move(module));
  }
  return model;
}

std::vector<std::string> strings(const Json& array) {
  std::vector<std::string> result;
  for (const Json& item : *array.as_array()) result.push_back(*item.as_string());
  return result;
}

std::vector<std::string> paths(const std::vector<ModuleInfo>& modules) {
  std::vector<std::string> result;
  for (const ModuleInfo& module : modules) result.push_back(module.module_path);
  return result;
}

TEST_CASE("configurations select, save, rank and scale what PEFT does") {
  const Json document = read_json_file(golden("targets.json"));
  const JsonArray& cases = *document.as_array();
  REQUIRE(cases.size() > 50);
  for (const Json& recorded : cases) {
    const std::string members = dump_json(*recorded.find("config"), JsonStyle{});
    INFO(*recorded.find("model")->as_string() << " " << members);
    const Model model = model_of(*recorded.find("model")->as_string());
    AdapterConfig config = config_of(members);
    if (std::holds_alternative<std::monostate>(config.target_modules))
      config.target_modules = default_selector(model.model_type);
    add_task_heads(config);
    if (recorded.find("error") != nullptr) {
      CHECK_THROWS_AS(resolve_targets(config, model.modules, model.is_transformers), Error);
      continue;
    }
    const ResolvedTargets resolved = resolve_targets(config, model.modules, model.is_transformers);
    const JsonArray& lora = *recorded.find("lora")->as_array();
    REQUIRE(resolved.lora.size() == lora.size());
    for (std::size_t i = 0; i < lora.size(); ++i) {
      const std::string& path = resolved.lora[i].module_path;
      CHECK(path == *lora[i].find("path")->as_string());
      const std::int64_t rank = rank_of(config, path);
      CHECK(Json(rank) == *lora[i].find("r"));
      CHECK(alpha_of(config, path) == *lora[i].find("alpha")->as_double());
      CHECK(scaling_of(config, path, rank) == *lora[i].find("scaling")->as_double());
    }
    CHECK(paths(resolved.saved) == strings(*recorded.find("saved")));
    CHECK(resolved.dead_patterns == strings(*recorded.find("dead_patterns")));

    expand_all_linear(config, model.modules, model.is_transformers);
    CHECK(*to_json(config).find("target_modules") == *recorded.find("stored_targets"));
    CHECK(*to_json(config).find("modules_to_save") == *recorded.find("stored_saved"));
  }
}

TEST_CASE("the defaults per model type are PEFT's") {
  CHECK(default_targets("llama") == std::vector<std::string>{"q_proj", "v_proj"});
  CHECK(default_targets("phi") == std::vector<std::string>{"q_proj", "v_proj", "fc1", "fc2"});
  CHECK(default_targets("gpt2") == std::vector<std::string>{"c_attn"});
  CHECK(default_targets("mlp").empty());
  CHECK(default_selector("gemma4") == ModuleSelector(R"(.*language_model\..*\.(q_proj|v_proj))"));
  CHECK(std::holds_alternative<std::monostate>(default_selector("mlp")));
}

TEST_CASE("entries without effect are listed") {
  const Model model = model_of("llama");
  const ResolvedTargets resolved = resolve_targets(
      config_of(R"({"target_modules": ["q_proj", "qproj", "v_proj"], "exclude_modules": ["v_proj"],
                    "modules_to_save": ["lm_head", "score"], "rank_pattern": {"k_proj": 2}})"),
      model.modules, true);
  CHECK(resolved.dead_targets == std::vector<std::string>{"qproj", "v_proj"});
  CHECK(resolved.dead_saved == std::vector<std::string>{"score"});
  CHECK(resolved.dead_patterns == std::vector<std::string>{"k_proj"});
}

TEST_CASE("targets that cannot be resolved say why and what exists") {
  const Model mlp = model_of("mlp");
  const Model llama = model_of("llama");
  const auto resolve = [](const Model& model, const char* members) {
    return resolve_targets(config_of(members), model.modules, model.is_transformers);
  };
  require_error(ErrorKind::incompatible, "[\"fc3\"] matches no module",
                [&] { resolve(mlp, R"({"target_modules": ["fc3"]})"); });
  require_error(ErrorKind::incompatible, "expected names among fc1, fc2",
                [&] { resolve(mlp, R"({"target_modules": "fc"})"); });
  require_error(ErrorKind::incompatible, "not excluded or saved", [&] {
    resolve(mlp, R"({"target_modules": ["fc1"], "exclude_modules": ["fc1"]})");
  });
  require_error(ErrorKind::incompatible, "relu of class ReLU",
                [&] { resolve(mlp, R"({"target_modules": ["relu"]})"); });
  require_error(ErrorKind::incompatible, "modules_to_save also selects lm_head", [&] {
    resolve(llama, R"({"target_modules": ["lm_head"], "modules_to_save": ["head"]})");
  });
  require_error(ErrorKind::incompatible, "class ModuleList", [&] {
    resolve(llama, R"({"target_modules": ["lm_head"], "modules_to_save": ["layers"]})");
  });
  require_error(ErrorKind::usage, "no target_modules", [&] { resolve(mlp, "{}"); });
  require_error(ErrorKind::usage, "fc(", [&] { resolve(mlp, R"({"target_modules": "fc("})"); });
  require_error(ErrorKind::usage, "empty name in the list",
                [&] { resolve(mlp, R"({"target_modules": ["fc1", ""]})"); });
  require_error(ErrorKind::usage, "empty name in modules_to_save",
                [&] { resolve(mlp, R"({"target_modules": ["fc1"], "modules_to_save": [""]})"); });
  require_error(ErrorKind::incompatible, "target_parameters [\"fc3.weight\"] matches no", [&] {
    resolve(mlp, R"({"target_parameters": ["fc3.weight"]})");
  });
}

TEST_CASE("heads of a task are added once") {
  AdapterConfig config = config_of(R"({"task_type": "SEQ_CLS", "modules_to_save": ["score"]})");
  add_task_heads(config);
  add_task_heads(config);
  CHECK(config.modules_to_save == std::vector<std::string>{"score", "classifier"});
  config = config_of(R"({"task_type": "QUESTION_ANS"})");
  add_task_heads(config);
  CHECK(config.modules_to_save == std::vector<std::string>{"qa_outputs"});
  config = config_of(R"({"task_type": "CAUSAL_LM"})");
  add_task_heads(config);
  CHECK(config.modules_to_save.empty());
}

}  // namespace
}  // namespace lora
