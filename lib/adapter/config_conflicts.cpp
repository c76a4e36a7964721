#include <algorithm>
#include <array>

#include "lora/adapter/config_check.h"

namespace lora {
namespace {

constexpr std::array<std::string_view, 6> kTaskTypes{
    "SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"};
constexpr std::array<std::string_view, 9> kInitialisations{
    "gaussian", "eva", "olora", "pissa", "corda", "loftq", "orthogonal", "mica", "lora_ga"};
constexpr std::array<std::string_view, 6> kVariantFields{
    "velora_config", "alora_invocation_tokens", "monteclora_config", "use_bdlora", "arrow_config",
    "kasa_config"};

template <typename Names>
std::string listed(const Names& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

// Python's truth: null, false, 0, "", [] and {} are nothing.
bool is_something(const Json* value) {
  if (value == nullptr || value->is_null()) return false;
  if (const auto flag = value->as_bool()) return *flag;
  if (const auto number = value->as_double()) return *number != 0;
  if (const auto* text = value->as_string()) return !text->empty();
  if (const auto* array = value->as_array()) return !array->empty();
  return !value->as_object()->empty();
}

bool has(const AdapterConfig& config, std::string_view field) {
  return is_something(config.other.find(field));
}

std::string lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

bool is_known_initialisation(const std::string& name) {
  constexpr std::string_view counted = "pissa_niter_";
  if (name.starts_with(counted))
    return name.size() > counted.size() &&
           name.find_first_not_of("0123456789", counted.size()) == std::string::npos;
  const std::string plain = lower(name);
  return std::find(kInitialisations.begin(), kInitialisations.end(), plain) !=
         kInitialisations.end();
}

class Conflicts {
 public:
  explicit Conflicts(const AdapterConfig& config) : config_(config) {}

  std::vector<ConfigProblem> find() {
    task();
    layers();
    biases();
    initialisation();
    variants();
    return std::move(found_);
  }

 private:
  void add(std::string_view field, std::string message) {
    found_.push_back({std::string(field), std::move(message)});
  }

  void task() {
    if (!config_.task_type ||
        std::find(kTaskTypes.begin(), kTaskTypes.end(), *config_.task_type) != kTaskTypes.end())
      return;
    add("task_type",
        "task_type is \"" + *config_.task_type + "\", expected one of " + listed(kTaskTypes));
  }

  void layers() {
    const bool is_regex = std::holds_alternative<std::string>(config_.target_modules);
    const bool has_layers = !config_.layers_to_transform.empty();
    if (is_regex && has_layers)
      add("layers_to_transform",
          "layers_to_transform cannot be used when target_modules is a string, expected a list");
    if (is_regex && !config_.layers_pattern.empty())
      add("layers_pattern",
          "layers_pattern cannot be used when target_modules is a string, expected a list");
    const Json* spelled = config_.spelling.find("layers_to_transform");
    const bool has_empty_list = spelled != nullptr && spelled->is_array();
    if (!is_regex && !config_.layers_pattern.empty() && !has_layers && !has_empty_list)
      add("layers_pattern", "layers_pattern is given without layers_to_transform, expected both");
  }

  void biases() {
    if (!config_.lora_bias) return;
    if (config_.use_dora)
      add("lora_bias", "lora_bias and use_dora are both true, expected at most one");
    if (!config_.init_lora_weights.is_bool())
      add("lora_bias",
          "lora_bias is true and init_lora_weights is a string, expected true or false");
  }

  void initialisation() {
    const std::string* name = config_.init_lora_weights.as_string();
    if (name == nullptr || name->empty()) return;
    if (!is_known_initialisation(*name)) {
      add("init_lora_weights", "init_lora_weights is \"" + *name +
                                   "\", expected true, false, pissa_niter_N or one of " +
                                   listed(kInitialisations));
    } else if (*name == "loftq" && !has(config_, "loftq_config")) {
      add("loftq_config", "init_lora_weights is loftq without loftq_config, expected both");
    } else if (*name == "lora_ga" && !has(config_, "lora_ga_config")) {
      add("lora_ga_config", "init_lora_weights is lora_ga without lora_ga_config, expected both");
    } else if (*name == "orthogonal") {
      even_ranks();
    }
  }

  void even_ranks() {
    if (config_.rank % 2 != 0)
      add("r", "init_lora_weights is orthogonal and r is " + std::to_string(config_.rank) +
                   ", expected an even rank");
    for (const auto& [pattern, rank] : config_.rank_pattern)
      if (static_cast<std::int64_t>(rank) % 2 != 0)
        add("rank_pattern", "init_lora_weights is orthogonal and rank_pattern[" + pattern +
                                "] is odd, expected even ranks");
  }

  void variants() {
    const std::vector<std::string> active = active_variants(config_);
    if (active.size() > 1)
      add(active[1],
          "the variants " + listed(active) + " are all switched on, expected at most one");
    if (config_.use_dora && has(config_, "megatron_config"))
      add("megatron_config", "use_dora is true and megatron_config is set, expected at most one");
  }

  const AdapterConfig& config_;
  std::vector<ConfigProblem> found_;
};

}  // namespace

std::vector<std::string> active_variants(const AdapterConfig& config) {
  std::vector<std::string> active;
  const std::string* init = config.init_lora_weights.as_string();
  if (init != nullptr && lower(*init) == "mica") active.emplace_back("init_lora_weights=mica");
  if (config.use_dora) active.emplace_back("use_dora");
  for (const std::string_view field : kVariantFields)
    if (has(config, field)) active.emplace_back(field);
  return active;
}

std::vector<ConfigProblem> find_conflicts(const AdapterConfig& config) {
  return Conflicts(config).find();
}

}  // namespace lora
