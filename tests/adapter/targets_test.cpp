#include "lora/adapter/targets.h"

#include <map>

#include "adapter/golden.h"
#include "lora/adapter/keys.h"
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
  if (name == "convolution") return LayerKind::convolution;
  if (name == "attention") return LayerKind::attention;
  return name == "norm" ? LayerKind::norm : LayerKind::other;
}

std::vector<std::int64_t> shape_of(const Json& array) {
  std::vector<std::int64_t> shape;
  for (const Json& extent : *array.as_array()) shape.push_back(*extent.as_int());
  return shape;
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
    ModuleList parameters;
    for (const auto& [parameter, shape] : *item.find("parameters")->as_object()) {
      if (parameter == "weight") {
        module.weight_shape = shape_of(shape);
      } else if (parameter == "bias") {
        module.has_bias = true;
      } else {
        ModuleInfo info;
        info.module_path =
            module.module_path.empty() ? parameter : module.module_path + "." + parameter;
        info.kind = LayerKind::parameter;
        info.weight_shape = shape_of(shape);
        parameters.push_back(std::move(info));
      }
    }
    model.modules.push_back(std::move(module));
    model.modules.insert(model.modules.end(), parameters.begin(), parameters.end());
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

void check_numbers(const AdapterConfig& config, const std::string& path, const Json& site) {
  INFO(path);
  const std::int64_t rank = rank_of(config, path);
  CHECK(Json(rank) == *site.find("r"));
  CHECK(alpha_of(config, path) == *site.find("alpha")->as_double());
  CHECK(scaling_of(config, path, rank) == *site.find("scaling")->as_double());
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
    std::vector<std::string> expected;
    for (const Json& site : *recorded.find("lora")->as_array()) {
      const std::string& path = *site.find("path")->as_string();
      // The second site of an attention module comes with the first.
      if (path.ends_with(".base_layer.out_proj")) continue;
      expected.push_back(without_base_layers(path));
      check_numbers(config, expected.back(), site);
    }
    CHECK(paths(resolved.lora) == expected);
    std::map<std::string, std::string> parameters;
    for (const Json& site : *recorded.find("parameters")->as_array()) {
      parameters[*site.find("path")->as_string()] = *site.find("parameter")->as_string();
      check_numbers(config, *site.find("parameter")->as_string(), site);
    }
    std::map<std::string, std::string> found;
    for (const ParameterTarget& target : resolved.parameters)
      found[target.module_path] = target.base_name;
    CHECK(found == parameters);
    CHECK(paths(resolved.saved) == strings(*recorded.find("saved")));
    // PEFT calls patterns of parameters dead, although it applies them.
    if (parameters.empty())
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
  const ResolvedTargets parameters =
      resolve_targets(config_of(R"({"target_parameters": ["experts.down_proj", "down"],
                                    "rank_pattern": {"down_proj": 2, "up_proj": 3}})"),
                      model_of("kinds").modules, false);
  CHECK(parameters.dead_parameters == std::vector<std::string>{"down"});
  CHECK(parameters.dead_patterns == std::vector<std::string>{"up_proj"});
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
  const Model kinds = model_of("kinds");
  require_error(ErrorKind::incompatible, "a parameter of the model itself",
                [&] { resolve(kinds, R"({"target_parameters": ["scale"]})"); });
  require_error(ErrorKind::incompatible, "whose module target_modules selects too", [&] {
    resolve(kinds, R"({"target_modules": ["proj"], "target_parameters": ["proj.weight"]})");
  });
  require_error(ErrorKind::incompatible, "of shape [10], expected 2 dimensions",
                [&] { resolve(kinds, R"({"target_parameters": ["experts.gate_up_proj_bias"]})"); });
  require_error(ErrorKind::incompatible, "inside the module of blocks.0.experts.gate_up_proj", [&] {
    resolve(kinds, R"({"target_parameters": ["gate_up_proj", "router.weight"]})");
  });
  require_error(ErrorKind::incompatible, "no list of layers", [&] {
    resolve(mlp, R"({"target_modules": ["fc1"], "layer_replication": [[0, 1]]})");
  });
  require_error(ErrorKind::incompatible, "names layer 2, and model.layers has none", [&] {
    resolve(llama, R"({"target_modules": ["q_proj"], "layer_replication": [[0, 3]]})");
  });
  require_error(ErrorKind::incompatible, "more than 4096 layers", [&] {
    resolve(llama, R"({"target_modules": ["q_proj"], "layer_replication": [[0, 9999999]]})");
  });
  require_error(ErrorKind::incompatible, "target_parameters [\"fc3.weight\"] matches no",
                [&] { resolve(mlp, R"({"target_parameters": ["fc3.weight"]})"); });
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
