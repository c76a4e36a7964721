#include "engine/train/adapter_init.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base_change.h"
#include "engine/quantised_base.h"
#include "engine/train/new_layer.h"
#include "engine/train/new_tokens.h"
#include "lora/adapter/config_check.h"
#include "lora/base/error.h"

namespace lora::engine {
namespace {

constexpr const char* kPeftVersion = "0.21.2";

std::string list_layers(const ModuleList& modules) {
  std::string list;
  for (const ModuleInfo& module : modules)
    if (module.kind == LayerKind::linear || module.kind == LayerKind::conv1d)
      list += (list.empty() ? "" : ", ") + module.module_path;
  return list.empty() ? "none" : list;
}

struct BaseParameter {
  std::string module_path;  ///< in the model
  std::string parameter;    ///< "weight", "bias", ...
  const Tensor* value = nullptr;
};

// Checkpoints of a bare model lack the first component of the paths ("transformer.").
std::vector<BaseParameter> parameters_of(const Checkpoint& base) {
  std::map<std::string, std::string> whole_paths;
  for (const ModuleInfo& module : list_modules(base)) {
    const std::string& path = module.module_path;
    whole_paths.emplace(path.substr(path.find('.') + 1), path);
  }
  for (const ModuleInfo& module : list_modules(base))
    whole_paths[module.module_path] = module.module_path;
  std::vector<BaseParameter> parameters;
  const auto add = [&](const std::string& name) {
    const std::size_t dot = name.rfind('.');
    std::string path = dot == std::string::npos ? "" : name.substr(0, dot);
    const auto whole = whole_paths.find(path);
    if (whole != whole_paths.end()) path = whole->second;
    parameters.push_back(
        {path, name.substr(dot == std::string::npos ? 0 : dot + 1), base.find(name)});
  };
  for (const auto& [name, tensor] : base.tensors) add(name);
  for (const auto& [name, target] : base.aliases) add(name);
  return parameters;
}

bool is_target(const ResolvedTargets& targets, const std::string& module_path) {
  for (const ModuleInfo& module : targets.lora)
    if (module.module_path == module_path) return true;
  return false;
}

bool is_inside_saved(const ResolvedTargets& targets, const std::string& module_path) {
  for (const ModuleInfo& module : targets.saved)
    if ((module_path + ".").starts_with(module.module_path + ".")) return true;
  return false;
}

void add_base_parameters(TensorMap& tensors, const AdapterConfig& config,
                         const ResolvedTargets& targets, const Checkpoint& base) {
  if (targets.saved.empty() && config.bias == BiasMode::none) return;
  for (const auto& [module_path, parameter, value] : parameters_of(base)) {
    if (is_inside_saved(targets, module_path)) {
      tensors[key_of(KeyRole::saved, module_path, parameter)] = *value;
      continue;
    }
    if (config.bias == BiasMode::none || parameter != "bias") continue;
    if (is_target(targets, module_path))
      tensors[key_of(KeyRole::base_layer, module_path, parameter)] = *value;
    else if (config.bias == BiasMode::all)
      tensors[key_of(KeyRole::saved, module_path, parameter)] = *value;
  }
}

std::string kind_without_training(LayerKind kind) {
  switch (kind) {
    case LayerKind::linear:
    case LayerKind::conv1d:
    case LayerKind::embedding:
      return {};
    case LayerKind::convolution:
      return "a convolution";
    case LayerKind::attention:
      return "a fused attention (nn.MultiheadAttention)";
    case LayerKind::parameter:
      return "a bare parameter";
    case LayerKind::norm:
      return "a norm";
    case LayerKind::other:
      break;
  }
  return "no layer with a matrix";
}

void refuse_other_kinds(const ResolvedTargets& targets) {
  std::string found;
  const auto add = [&](const std::string& name, const std::string& kind) {
    found += (found.empty() ? "" : ", ") + name + " is " + kind;
  };
  for (const ModuleInfo& module : targets.lora)
    if (const std::string kind = kind_without_training(module.kind); !kind.empty())
      add(module.module_path, kind);
  for (const ParameterTarget& parameter : targets.parameters)
    add(parameter.base_name, kind_without_training(LayerKind::parameter));
  if (!found.empty())
    throw Error(ErrorKind::unsupported, "cannot train LoRA on every target: " + found +
                                            ", expected linear layers and embeddings")
        .with_hint("leave them out with --target-modules, or train them with PEFT");
}

// A head that shares its weight with the embedding cannot lose its first factors alone.
void refuse_changed_head(const AdapterConfig& config, const ResolvedTargets& targets,
                         const Checkpoint& base) {
  if (!base_change_of(config)) return;
  for (const ModuleInfo& module : targets.lora)
    if (base.aliases.contains(module.module_path + ".weight"))
      throw Error(ErrorKind::unsupported,
                  "cannot start " + module.module_path + " with init_lora_weights " +
                      base_changing_init(config) +
                      ": it shares its weight with the embedding, which would change too")
          .with_hint("leave it out of --target-modules, or use --init default");
}

void refuse_variants(const AdapterConfig& config, bool is_mlp) {
  const auto refuse = [](const std::string& what) {
    throw Error(ErrorKind::unsupported,
                "cannot train with " + what + ", expected a plain LoRA adapter")
        .with_hint("train a plain LoRA adapter");
  };
  if (config.use_dora && is_mlp) refuse("use_dora on an mlp");
  constexpr std::array<std::string_view, 3> kTasks{"CAUSAL_LM", "SEQ_CLS", "TOKEN_CLS"};
  if (config.task_type &&
      std::find(kTasks.begin(), kTasks.end(), *config.task_type) == kTasks.end())
    refuse("task_type " + *config.task_type);
  const Json* tying = config.other.find("ensure_weight_tying");
  if (tying != nullptr && *tying == Json(true)) refuse("ensure_weight_tying");
}

bool is_for_tokens(const TokenModel& model) {
  return model.head.kind == HeadConfig::Kind::token_classification;
}

void require_task(const std::string& task_type, const std::optional<TokenModel>& model) {
  const bool is_classifier = model && model->head.is_classifier();
  const auto refuse = [&](const std::string& expected) {
    throw Error(ErrorKind::unsupported,
                "cannot train with task_type " + task_type + ": the base is no " + expected);
  };
  if (task_type == "SEQ_CLS" && (!is_classifier || is_for_tokens(*model)))
    refuse("sequence classifier");
  if (task_type == "TOKEN_CLS" && (!is_classifier || !is_for_tokens(*model)))
    refuse("token classifier");
}

}  // namespace

AdapterConfig complete_config(AdapterConfig config, const Checkpoint& base,
                              const ModuleList& modules, const std::string& base_source,
                              const std::string& init) {
  if (config.rank < 1)
    throw Error(ErrorKind::usage,
                "--rank is " + std::to_string(config.rank) + ", expected at least 1");
  if (!(config.dropout >= 0 && config.dropout < 1))
    throw Error(ErrorKind::usage, "--dropout is " + std::to_string(config.dropout) +
                                      ", expected a number from 0 to below 1");
  const bool is_transformers = base.config && base.config->is_transformers();
  const std::string model_type = base.config ? base.config->model_type : "";
  if (std::holds_alternative<std::monostate>(config.target_modules)) {
    ModuleSelector selector = default_selector(model_type);
    if (std::holds_alternative<std::monostate>(selector))
      throw Error(ErrorKind::usage, "no target modules were given and model type '" + model_type +
                                        "' has no default; its layers are " + list_layers(modules))
          .with_hint("pass --target-modules with some of these names, or all-linear");
    config.target_modules = std::move(selector);
  }
  const auto token_model = base.config ? base.config->token_model() : std::nullopt;
  if (!config.task_type && token_model && token_model->is_causal) config.task_type = "CAUSAL_LM";
  if (!config.task_type && token_model && token_model->head.is_classifier())
    config.task_type = is_for_tokens(*token_model) ? "TOKEN_CLS" : "SEQ_CLS";
  refuse_variants(config, base.config && base.config->mlp);
  require_task(config.task_type.value_or(""), token_model);
  add_task_heads(config);
  expand_all_linear(config, modules, is_transformers);
  if (is_transformers && !config.base_model_name_or_path)
    config.base_model_name_or_path = base_source;
  config.peft_version = kPeftVersion;
  config.init_lora_weights = *init_lora_weights_of(init);
  if (const auto conflict = find_conflict(config)) throw Error(ErrorKind::usage, *conflict);
  return config;
}

void set_weight_layout(AdapterConfig& config, const ResolvedTargets& targets) {
  for (const ModuleInfo& module : targets.lora) {
    if (module.kind == LayerKind::conv1d) config.fan_in_fan_out = true;
    if (module.kind == LayerKind::linear) config.fan_in_fan_out = false;
  }
}

Adapter create_adapter(const AdapterConfig& config, const ResolvedTargets& targets,
                       const Checkpoint& base, const std::string& init, std::uint64_t seed,
                       Compute compute, BaseDtype base_dtype) {
  refuse_other_kinds(targets);
  refuse_changed_head(config, targets, base);
  refuse_changed_base(config, base_dtype);
  const NewLayers settings{base, init, seed, compute, base_dtype};
  TensorMap tensors;
  for (const ModuleInfo& module : targets.lora) {
    add_new_layer(tensors, config, module, settings);
  }
  add_base_parameters(tensors, config, targets, base);
  add_token_rows(tensors, config, targets, base, compute);
  if (tensors.empty())
    throw Error(ErrorKind::incompatible, "nothing to train: 0 trainable parameters")
        .with_hint("check --target-modules and --modules-to-save");
  return make_adapter(config, std::move(tensors), {});
}

void check_continuable(const Adapter& adapter) {
  if (!adapter.problems.empty()) {
    const KeyProblem& first = adapter.problems.front();
    const std::size_t others = adapter.problems.size() - 1;
    throw Error(ErrorKind::incompatible,
                "cannot continue adapter " + adapter.path.string() + ": " + first.message +
                    (others > 0 ? " (and " + std::to_string(others) + " more)" : ""))
        .in_file(adapter.weights_path.string())
        .in_tensor(first.key);
  }
  const auto refuse_init = [&](const std::string& reason) {
    throw Error(ErrorKind::unsupported,
                "cannot continue adapter " + adapter.path.string() + ": " + reason)
        .in_file(adapter.path.string())
        .with_hint("lora convert makes it a plain one, which can be trained on");
  };
  base_change_of(adapter.config);  // refuses what cannot be taken out of the base again
  if (const std::vector<std::string> active = active_variants(adapter.config);
      std::find(active.begin(), active.end(), "init_lora_weights=mica") != active.end())
    refuse_init("init_lora_weights 'mica' keeps B as it was drawn, expected both factors to train");
  refuse_variants(adapter.config, false);
}

}  // namespace lora::engine
