#include "ops/extract/result.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "checkpoint/module_names.h"
#include "lora/adapter/strength.h"
#include "lora/adapter/targets.h"
#include "lora/base/error.h"
#include "ops/save_config.h"

namespace lora::extraction {
namespace {

std::string peft_key(KeyRole role, const std::string& module_path, const std::string& parameter) {
  ParsedKey key;
  key.role = role;
  key.module_path = module_path;
  key.parameter = parameter;
  return to_peft_key(key);
}

Tensor rows_of(const Tensor& matrix, const std::vector<std::int64_t>& rows) {
  const std::size_t width = static_cast<std::size_t>(matrix.shape[1]) * bits_of(matrix.dtype) / 8;
  std::vector<std::byte> bytes(rows.size() * width);
  for (std::size_t i = 0; i < rows.size(); ++i)
    std::memcpy(bytes.data() + i * width,
                matrix.bytes.data() + static_cast<std::size_t>(rows[i]) * width, width);
  return Tensor::from_bytes(matrix.dtype, {static_cast<std::int64_t>(rows.size()), matrix.shape[1]},
                            std::move(bytes));
}

std::optional<std::string> task_of(const Checkpoint& base) {
  const auto model = base.config ? base.config->token_model() : std::nullopt;
  if (!model) return std::nullopt;
  if (model->is_causal) return "CAUSAL_LM";
  if (!model->head.is_classifier()) return std::nullopt;
  return model->head.kind == HeadConfig::Kind::token_classification ? "TOKEN_CLS" : "SEQ_CLS";
}

std::set<std::string> paths_of(const std::vector<ModuleInfo>& modules) {
  std::set<std::string> paths;
  for (const ModuleInfo& module : modules) paths.insert(module.module_path);
  return paths;
}

// PEFT compares the entries of modules_to_save as endings without a dot: one that is the end of
// another module's name is written as a whole path.
std::vector<std::string> saved_names(const std::set<std::string>& saved,
                                     const std::vector<std::string>& known) {
  std::vector<std::string> names;
  for (const std::string& name : target_names(saved, known)) {
    const auto is_exact = [&](const std::string& path) {
      return path == name || path.ends_with("." + name);
    };
    if (std::none_of(known.begin(), known.end(), [&](const std::string& path) {
          return path.ends_with(name) && !is_exact(path);
        }))
      names.push_back(name);
    else
      std::copy_if(saved.begin(), saved.end(), std::back_inserter(names), is_exact);
  }
  return names;
}

}  // namespace

std::string key_of(const Site& site, bool is_a) {
  const bool is_embedding = site.kind == LayerKind::embedding;
  if (is_a)
    return peft_key(is_embedding ? KeyRole::embedding_a : KeyRole::lora_a, site.module_path, "");
  return peft_key(is_embedding ? KeyRole::embedding_b : KeyRole::lora_b, site.module_path, "");
}

Carried carried_of(const Survey& survey, const Checkpoint& tuned) {
  Carried carried;
  const auto add = [&](CarriedPart::Kind kind, const std::string& key, const std::string& name,
                       const Tensor& tensor) {
    carried.tensors[key] = tensor;
    carried.parts.push_back({kind, name,
                             kind == CarriedPart::Kind::token_rows ? tensor.shape[0] : 0,
                             tensor.bytes.size()});
  };
  for (const Tokens& tokens : survey.tokens) {
    const std::string name = tokens.module_path + ".weight";
    add(CarriedPart::Kind::token_rows, peft_key(KeyRole::trainable_tokens, tokens.module_path, ""),
        name, rows_of(*tuned.find(name), tokens.rows));
  }
  // PEFT saves the biases of every adapted layer together.
  if (!survey.biased.empty())
    for (const Site& site : survey.sites) {
      const std::string name = site.module_path + ".bias";
      const Tensor* bias = tuned.find(name);
      if (bias != nullptr && site.kind != LayerKind::embedding)
        add(CarriedPart::Kind::bias, peft_key(KeyRole::base_layer, site.module_path, "bias"), name,
            *bias);
    }
  for (const std::string& path : survey.saved)
    for (const auto& [name, tensor] : parameters_of(tuned, path))
      add(CarriedPart::Kind::module,
          peft_key(KeyRole::saved, split_parameter(name).first, split_parameter(name).second), name,
          *tensor);
  return carried;
}

AdapterConfig config_of(const Survey& survey, const std::vector<Factors>& factors,
                        const Checkpoint& base, const ModuleList& modules) {
  AdapterConfig config;
  config.peft_version = "0.21.2";
  config.task_type = task_of(base);
  config.bias = survey.biased.empty() ? BiasMode::none : BiasMode::lora_only;
  std::set<std::string> adapted;
  std::map<std::string, SiteStrength> strengths;
  for (std::size_t i = 0; i < survey.sites.size(); ++i) {
    if (factors[i].rank == 0) continue;
    adapted.insert(survey.sites[i].module_path);
    strengths[survey.sites[i].module_path] = {factors[i].rank, 1};
    if (survey.sites[i].kind == LayerKind::conv1d) config.fan_in_fan_out = true;
  }
  set_strengths(config, strengths);
  if (!survey.tokens.empty()) {
    JsonObject indices;
    for (const Tokens& tokens : survey.tokens)
      indices[tokens.module_path] = JsonArray(tokens.rows.begin(), tokens.rows.end());
    config.other["trainable_token_indices"] = std::move(indices);
  }
  std::vector<std::string> known;
  for (const ModuleInfo& module : modules) known.push_back(module.module_path);
  const std::set<std::string> saved(survey.saved.begin(), survey.saved.end());
  const bool is_transformers = base.config && base.config->is_transformers();
  // Short names where they select exactly the same, whole paths otherwise.
  for (const bool is_short : {true, false}) {
    const auto names = [&](const std::set<std::string>& paths) {
      return is_short ? target_names(paths, known)
                      : std::vector<std::string>(paths.begin(), paths.end());
    };
    config.target_modules = names(adapted);
    config.modules_to_save = is_short ? saved_names(saved, known) : names(saved);
    const ResolvedTargets targets = resolve_targets(config, modules, is_transformers);
    if (paths_of(targets.lora) == adapted && paths_of(targets.saved) == saved) return config;
  }
  throw Error(ErrorKind::unsupported,
              "cannot extract to an adapter of " + base.path.string() +
                  ": no configuration of PEFT selects exactly the modules that changed")
      .in_file(base.path.string());
}

}  // namespace lora::extraction
