#include "ops/save_config.h"

#include <algorithm>
#include <map>
#include <set>

#include "lora/adapter/keys.h"
#include "lora/base/error.h"

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

// Last components, when they select exactly the adapted modules among all known ones.
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

}  // namespace

AdapterConfig config_from_keys(const TensorMap& tensors, const SaveFlags& flags,
                               const std::vector<std::string>& known_modules,
                               const std::string& source) {
  require_flags(flags, source);
  AdapterConfig config;
  config.peft_version = "0.21.2";
  config.alpha = *flags.alpha;
  config.use_rslora = *flags.use_rslora;
  if (*flags.task != "none") config.task_type = *flags.task;
  config.base_model_name_or_path = flags.base_name;

  std::map<std::string, std::int64_t> ranks;
  std::set<std::string> saved;
  bool has_bias = false;
  for (const auto& [peft_key, tensor] : tensors) {
    const ParsedKey key = parse_key(peft_key);
    if ((key.role == KeyRole::lora_a || key.role == KeyRole::embedding_a) && !tensor.shape.empty())
      ranks[key.module_path] = tensor.shape[0];
    if (key.role == KeyRole::magnitude) config.use_dora = true;
    if (key.role == KeyRole::lora_b_bias) config.lora_bias = true;
    if (key.role == KeyRole::base_layer && key.parameter == "bias") has_bias = true;
    if (key.role == KeyRole::saved) saved.insert(key.module_path);
  }
  if (has_bias) config.bias = BiasMode::lora_only;

  std::map<std::int64_t, std::size_t> frequency;
  for (const auto& [path, rank] : ranks) ++frequency[rank];
  std::size_t most = 0;
  for (const auto& [rank, count] : frequency) {
    if (count <= most) continue;
    most = count;
    config.rank = rank;
  }
  std::set<std::string> adapted;
  for (const auto& [path, rank] : ranks) {
    adapted.insert(path);
    if (rank != config.rank)
      config.rank_pattern.emplace_back("^" + path, static_cast<double>(rank));
  }
  config.target_modules = target_names(adapted, known_modules);
  std::set<std::string> saved_names;
  for (const std::string& path : saved) saved_names.insert(last_component(path));
  config.modules_to_save.assign(saved_names.begin(), saved_names.end());
  return config;
}

}  // namespace lora
