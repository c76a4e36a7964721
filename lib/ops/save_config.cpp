#include "ops/save_config.h"

#include <algorithm>
#include <string_view>

#include "lora/adapter/keys.h"
#include "lora/base/error.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

std::string last_component(const std::string& path) { return path.substr(path.rfind('.') + 1); }

void require_flags(const SaveFlags& flags, const std::string& source) {
  std::string missing;
  const auto need = [&](bool is_given, const char* text) {
    if (!is_given) missing += (missing.empty() ? "" : ", ") + std::string(text);
  };
  need(flags.alpha.has_value(), "--alpha");
  need(flags.use_rslora.has_value(), "--rslora or --no-rslora");
  need(flags.task.has_value(), "--task");
  if (missing.empty()) return;
  throw Error(ErrorKind::usage, "cannot save from " + source +
                                    ": a state dict does not say how strongly its weights are "
                                    "applied; missing " +
                                    missing)
      .in_file(source)
      .with_hint("give --adapter-config FILE, or these flags; nothing is assumed");
}

constexpr std::string_view kOutProjection = ".base_layer.out_proj";

// The module that PEFT's configuration names for LoRA inside a LoRA layer: the projection of an
// attention belongs to the attention. Any other nesting comes from target_parameters.
std::string configured_path(const std::string& module_path) {
  return module_path.ends_with(kOutProjection)
             ? module_path.substr(0, module_path.size() - kOutProjection.size())
             : module_path;
}

void survey_saved(const std::map<std::string, std::set<std::string>>& saved, KeySurvey& survey) {
  std::set<std::string> names;
  for (const auto& [path, parameters] : saved) {
    const bool is_bias_alone = parameters.size() == 1 && parameters.contains("bias");
    if (!is_bias_alone) {
      names.insert(last_component(path));
    } else if (!survey.ranks.contains(path)) {
      survey.bias = BiasMode::all;
    } else if (survey.bias == BiasMode::none) {
      survey.bias = BiasMode::lora_only;
    }
  }
  survey.saved_modules.assign(names.begin(), names.end());
}

}  // namespace

KeySurvey survey_keys(const TensorMap& tensors) {
  KeySurvey survey;
  std::map<std::string, std::set<std::string>> saved;
  bool has_bias = false;
  for (const auto& [peft_key, tensor] : tensors) {
    const ParsedKey key = parse_key(peft_key);
    const std::string path = configured_path(key.module_path);
    switch (key.role) {
      case KeyRole::lora_a:
      case KeyRole::embedding_a:
        if (path.find("base_layer") != std::string::npos)
          survey.unknowable.push_back("target_parameters (" + key.module_path + ")");
        else if (tensor.shape.size() > 1)
          survey.ranks[path] = tensor.shape[0];
        break;
      case KeyRole::magnitude:
        survey.has_magnitude = true;
        break;
      case KeyRole::lora_b_bias:
        survey.has_lora_bias = true;
        break;
      case KeyRole::trainable_tokens:
        survey.unknowable.push_back("trainable_token_indices (" + path + ")");
        break;
      case KeyRole::variant:
        survey.unknowable.push_back("the settings of " + key.parameter + " (" + path + ")");
        break;
      case KeyRole::base_layer:
        has_bias = has_bias || key.parameter == "bias";
        break;
      case KeyRole::saved:
        saved[path].insert(key.parameter);
        break;
      default:
        break;
    }
  }
  if (has_bias) survey.bias = BiasMode::lora_only;
  survey_saved(saved, survey);
  return survey;
}

void set_ranks(AdapterConfig& config, const std::map<std::string, std::int64_t>& ranks) {
  std::map<std::int64_t, std::size_t> frequency;
  for (const auto& [path, rank] : ranks) ++frequency[rank];
  std::size_t most = 0;
  for (const auto& [rank, count] : frequency) {
    if (count <= most) continue;
    most = count;
    config.rank = rank;
  }
  config.rank_pattern.clear();
  for (const auto& [path, rank] : ranks)
    if (rank != config.rank)
      config.rank_pattern.emplace_back(whole_path_pattern(path), static_cast<double>(rank));
}

std::vector<std::string> target_names(const std::set<std::string>& adapted,
                                      const std::vector<std::string>& known_modules) {
  std::set<std::string> names;
  for (const std::string& path : adapted) names.insert(last_component(path));
  const bool is_exact =
      known_modules.size() > adapted.size() &&
      std::all_of(known_modules.begin(), known_modules.end(), [&](const std::string& path) {
        return adapted.contains(path) || !names.contains(last_component(path));
      });
  return is_exact ? std::vector<std::string>(names.begin(), names.end())
                  : std::vector<std::string>(adapted.begin(), adapted.end());
}

AdapterConfig config_from_keys(const TensorMap& tensors, const SaveFlags& flags,
                               const std::vector<std::string>& known_modules,
                               const std::string& source) {
  require_flags(flags, source);
  const KeySurvey survey = survey_keys(tensors);
  if (!survey.unknowable.empty())
    throw Error(ErrorKind::usage,
                "cannot save from " + source +
                    ": its tensors need fields that only a configuration holds: " +
                    rules::join_some(survey.unknowable))
        .in_file(source)
        .with_hint("give the configuration with --adapter-config FILE");
  AdapterConfig config;
  config.peft_version = "0.21.2";
  config.alpha = *flags.alpha;
  config.use_rslora = *flags.use_rslora;
  if (*flags.task != "none") config.task_type = *flags.task;
  config.base_model_name_or_path = flags.base_name;
  config.use_dora = survey.has_magnitude;
  config.lora_bias = survey.has_lora_bias;
  config.bias = survey.bias;
  config.modules_to_save = survey.saved_modules;
  set_ranks(config, survey.ranks);
  std::set<std::string> adapted;
  for (const auto& [path, rank] : survey.ranks) adapted.insert(path);
  config.target_modules = target_names(adapted, known_modules);
  return config;
}

}  // namespace lora
