#include "engine/train/adapter_init.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "lora/adapter/config_check.h"
#include "lora/base/error.h"
#include "lora/base/random.h"

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

std::string peft_key(KeyRole role, const std::string& module_path, const std::string& parameter) {
  ParsedKey key;
  key.role = role;
  key.module_path = module_path;
  key.parameter = parameter;
  return to_peft_key(key);
}

using Draw = std::function<double(const CounterRandom&, std::uint64_t)>;

Tensor drawn(std::vector<std::int64_t> shape, const std::string& key, std::uint64_t seed,
             const Draw& draw) {
  const CounterRandom random(seed, stream_of(key));
  std::vector<float> values(static_cast<std::size_t>(shape[0] * shape[1]));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(draw(random, i));
  return Tensor::from_f32(std::move(shape), values);
}

// Kaiming uniform with a = sqrt(5), as torch.nn.Linear: the bound is 1/sqrt(fan_in).
Draw uniform_within(double bound) {
  return [bound](const CounterRandom& random, std::uint64_t i) {
    return (2 * random.uniform(i) - 1) * bound;
  };
}

Draw normal_with(double deviation) {
  return [deviation](const CounterRandom& random, std::uint64_t i) {
    return random.normal(i) * deviation;
  };
}

double zero(const CounterRandom&, std::uint64_t) { return 0; }

void add_factors(TensorMap& tensors, const ModuleInfo& module, std::int64_t rank,
                 const std::string& init, std::uint64_t seed) {
  const bool is_embedding = module.kind == LayerKind::embedding;
  const std::string a =
      peft_key(is_embedding ? KeyRole::embedding_a : KeyRole::lora_a, module.module_path, "");
  const std::string b =
      peft_key(is_embedding ? KeyRole::embedding_b : KeyRole::lora_b, module.module_path, "");
  Draw draw_a = zero;
  Draw draw_b = zero;
  const auto width = static_cast<double>(module.in_features);
  if (is_embedding)
    draw_b = normal_with(1);  // PEFT: A zero and B normal for embeddings, whatever the init
  else if (init == "gaussian")
    draw_a = normal_with(1 / static_cast<double>(rank));
  else if (init == "zero")
    draw_b = uniform_within(1 / std::sqrt(static_cast<double>(rank)));
  else
    draw_a = uniform_within(1 / std::sqrt(width));
  tensors[a] = drawn({rank, module.in_features}, a, seed, draw_a);
  tensors[b] = drawn({module.out_features, rank}, b, seed, draw_b);
}

// Checkpoints of a bare model lack the first component of the names.
const Tensor* find_weight(const Checkpoint& base, const std::string& module_path) {
  const std::string name = module_path + ".weight";
  const Tensor* weight = base.find(name);
  return weight != nullptr ? weight : base.find(name.substr(name.find('.') + 1));
}

// Norm of each output's weights, [out]; the first dimension counts outputs only in linear layers.
Tensor output_norms(const Tensor& weight, const ModuleInfo& module) {
  const bool is_linear = module.kind == LayerKind::linear;
  const std::vector<float> values = weight.to_f32();
  const auto columns = static_cast<std::size_t>(weight.shape[1]);
  std::vector<double> squares(static_cast<std::size_t>(module.out_features));
  for (std::size_t i = 0; i < values.size(); ++i)
    squares[is_linear ? i / columns : i % columns] += static_cast<double>(values[i]) * values[i];
  std::vector<float> norms;
  for (const double square : squares) norms.push_back(static_cast<float>(std::sqrt(square)));
  return Tensor::from_f32({module.out_features}, norms);
}

void add_vectors(TensorMap& tensors, const AdapterConfig& config, const ModuleInfo& module,
                 const Checkpoint& base) {
  const std::string& path = module.module_path;
  if (config.lora_bias) {
    if (module.kind == LayerKind::embedding)
      throw Error(ErrorKind::unsupported, "cannot train lora_bias on " + path +
                                              ": it is an embedding, expected linear layers");
    const std::vector<float> zeros(static_cast<std::size_t>(module.out_features));
    tensors[peft_key(KeyRole::lora_b_bias, path, "")] =
        Tensor::from_f32({module.out_features}, zeros);
  }
  if (!config.use_dora) return;
  const Tensor* weight = find_weight(base, path);
  if (weight == nullptr || weight->shape.size() != 2)
    throw Error(ErrorKind::incompatible,
                "cannot train DoRA on " + path + ": the base has no such matrix");
  tensors[peft_key(KeyRole::magnitude, path, "")] = output_norms(*weight, module);
}

std::vector<std::string> parameter_names(const Checkpoint& base) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : base.tensors) names.push_back(name);
  for (const auto& [name, target] : base.aliases) names.push_back(name);
  return names;
}

bool is_target(const ResolvedTargets& targets, const std::string& module_path) {
  for (const ModuleInfo& module : targets.lora)
    if (module.module_path == module_path) return true;
  return false;
}

bool is_inside_saved(const ResolvedTargets& targets, const std::string& base_name) {
  for (const ModuleInfo& module : targets.saved)
    if (base_name.starts_with(module.module_path + ".")) return true;
  return false;
}

void add_base_parameters(TensorMap& tensors, const AdapterConfig& config,
                         const ResolvedTargets& targets, const Checkpoint& base) {
  for (const std::string& name : parameter_names(base)) {
    const std::size_t dot = name.rfind('.');
    const std::string module_path = dot == std::string::npos ? "" : name.substr(0, dot);
    const std::string parameter = name.substr(dot == std::string::npos ? 0 : dot + 1);
    const Tensor& value = *base.find(name);
    if (is_inside_saved(targets, name)) {
      tensors[peft_key(KeyRole::saved, module_path, parameter)] = value;
      continue;
    }
    if (config.bias == BiasMode::none || parameter != "bias") continue;
    if (is_target(targets, module_path))
      tensors[peft_key(KeyRole::base_layer, module_path, parameter)] = value;
    else if (config.bias == BiasMode::all)
      tensors[peft_key(KeyRole::saved, module_path, parameter)] = value;
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
  if (const Json* tokens = config.other.find("trainable_token_indices");
      tokens != nullptr && !tokens->is_null())
    throw Error(ErrorKind::unsupported,
                "cannot start an adapter with trainable_token_indices, expected none")
        .with_hint("make the adapter with PEFT and continue it with --adapter");
  require_task(config.task_type.value_or(""), token_model);
  add_task_heads(config);
  expand_all_linear(config, modules, is_transformers);
  if (is_transformers && !config.base_model_name_or_path)
    config.base_model_name_or_path = base_source;
  config.peft_version = kPeftVersion;
  // `zero` has no name in PEFT; once trained, how the factors began does not matter to a reader.
  config.init_lora_weights = init == "gaussian" ? Json("gaussian") : Json(true);
  return config;
}

void set_weight_layout(AdapterConfig& config, const ResolvedTargets& targets) {
  for (const ModuleInfo& module : targets.lora) {
    if (module.kind == LayerKind::conv1d) config.fan_in_fan_out = true;
    if (module.kind == LayerKind::linear) config.fan_in_fan_out = false;
  }
}

Adapter create_adapter(const AdapterConfig& config, const ResolvedTargets& targets,
                       const Checkpoint& base, const std::string& init, std::uint64_t seed) {
  refuse_other_kinds(targets);
  TensorMap tensors;
  for (const ModuleInfo& module : targets.lora) {
    const std::int64_t rank = rank_of(config, module.module_path);
    if (rank < 1)
      throw Error(ErrorKind::usage, "the rank of " + module.module_path + " is " +
                                        std::to_string(rank) + ", expected at least 1");
    add_factors(tensors, module, rank, init, seed);
    add_vectors(tensors, config, module, base);
  }
  add_base_parameters(tensors, config, targets, base);
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
        .with_hint("convert it to a plain LoRA adapter with PEFT first");
  };
  if (const std::string init = base_changing_init(adapter.config); !init.empty())
    refuse_init("init_lora_weights '" + init + "' rewrites the base when it is loaded");
  if (const std::vector<std::string> active = active_variants(adapter.config);
      std::find(active.begin(), active.end(), "init_lora_weights=mica") != active.end())
    refuse_init("init_lora_weights 'mica' keeps B as it was drawn, expected both factors to train");
  refuse_variants(adapter.config, false);
}

}  // namespace lora::engine
