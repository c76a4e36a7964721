#include "lora/adapter/config.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "adapter/config_fields.h"
#include "lora/base/error.h"

namespace lora {
namespace {

constexpr const char* kWrittenPeftVersion = "0.21.2";
constexpr std::array<std::string_view, 6> kTaskTypes{
    "SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"};

// PEFT's own values are Python ints wherever the user gave one.
Json number_json(double value) {
  constexpr double kExactIntegers = 9007199254740992.0;
  if (value == std::floor(value) && std::fabs(value) <= kExactIntegers)
    return static_cast<std::int64_t>(value);
  return value;
}

Json text_json(const std::optional<std::string>& text) { return text ? Json(*text) : Json(); }

Json list_json(const std::vector<std::string>& names) {
  return JsonArray(names.begin(), names.end());
}

Json list_or_null(const std::vector<std::string>& names) {
  return names.empty() ? Json() : list_json(names);
}

Json selector_json(const ModuleSelector& selector) {
  if (const auto* pattern = std::get_if<std::string>(&selector)) return *pattern;
  if (const auto* listed = std::get_if<std::vector<std::string>>(&selector)) {
    std::vector<std::string> names = *listed;
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return list_json(names);
  }
  return {};
}

Json pattern_json(const NumberPattern& pattern) {
  JsonObject object;
  for (const auto& [key, value] : pattern) object[key] = number_json(value);
  return object;
}

std::string_view to_string(BiasMode mode) {
  switch (mode) {
    case BiasMode::none:
      return "none";
    case BiasMode::all:
      return "all";
    case BiasMode::lora_only:
      return "lora_only";
  }
  return "none";
}

JsonObject typed_members(const AdapterConfig& config) {
  Json layers;
  if (!config.layers_to_transform.empty())
    layers = JsonArray(config.layers_to_transform.begin(), config.layers_to_transform.end());
  return {{"alpha_pattern", pattern_json(config.alpha_pattern)},
          {"auto_mapping", config.auto_mapping},
          {"base_model_name_or_path", text_json(config.base_model_name_or_path)},
          {"bias", to_string(config.bias)},
          {"exclude_modules", selector_json(config.exclude_modules)},
          {"fan_in_fan_out", config.fan_in_fan_out},
          {"init_lora_weights", config.init_lora_weights},
          {"layers_pattern", list_or_null(config.layers_pattern)},
          {"layers_to_transform", std::move(layers)},
          {"lora_alpha", number_json(config.alpha)},
          {"lora_bias", config.lora_bias},
          {"lora_dropout", config.dropout},
          {"modules_to_save", list_or_null(config.modules_to_save)},
          {"peft_type", config.peft_type},
          {"peft_version", config.peft_version.value_or(kWrittenPeftVersion)},
          {"r", config.rank},
          {"rank_pattern", pattern_json(config.rank_pattern)},
          {"revision", text_json(config.revision)},
          {"target_modules", selector_json(config.target_modules)},
          {"task_type", text_json(config.task_type)},
          {"use_dora", config.use_dora},
          {"use_rslora", config.use_rslora}};
}

BiasMode parse_bias(const FieldReader& reader) {
  const std::string name = reader.one_of("bias", "none", {"none", "all", "lora_only"});
  if (name == "all") return BiasMode::all;
  return name == "lora_only" ? BiasMode::lora_only : BiasMode::none;
}

void read_typed_members(const FieldReader& reader, AdapterConfig& config) {
  config.task_type = reader.text_or_null("task_type");
  config.peft_version = reader.text_or_null("peft_version");
  config.base_model_name_or_path = reader.text_or_null("base_model_name_or_path");
  config.revision = reader.text_or_null("revision");
  config.rank = reader.positive("r", 8);
  config.alpha = reader.number("lora_alpha", 8);
  config.dropout = reader.number("lora_dropout", 0);
  if (config.dropout < 0 || config.dropout >= 1)
    reader.refuse("lora_dropout", *reader.find("lora_dropout"), "a number in [0, 1)");
  config.use_rslora = reader.boolean("use_rslora", false);
  config.use_dora = reader.boolean("use_dora", false);
  config.lora_bias = reader.boolean("lora_bias", false);
  config.fan_in_fan_out = reader.boolean("fan_in_fan_out", false);
  config.bias = parse_bias(reader);
  config.target_modules = reader.selector("target_modules");
  config.exclude_modules = reader.selector("exclude_modules");
  config.rank_pattern = reader.pattern("rank_pattern", true);
  config.alpha_pattern = reader.pattern("alpha_pattern", false);
  config.modules_to_save = reader.names_or_null("modules_to_save", false);
  config.layers_to_transform = reader.indices_or_null("layers_to_transform");
  config.layers_pattern = reader.names_or_null("layers_pattern", true);
  if (const Json* init = reader.find("init_lora_weights")) {
    if (!init->is_bool() && !init->is_string())
      reader.refuse("init_lora_weights", *init, "true, false or a string");
    config.init_lora_weights = *init;
  }
  if (const Json* mapping = reader.find("auto_mapping")) {
    if (!mapping->is_null() && !mapping->is_object())
      reader.refuse("auto_mapping", *mapping, "an object or null");
    config.auto_mapping = *mapping;
  }
}

void require_lora(const FieldReader& reader, const std::string& context) {
  const Json* type = reader.find("peft_type");
  if (type == nullptr)
    throw Error(ErrorKind::malformed, "cannot read " + context +
                                          " as adapter_config.json: field \"peft_type\" is "
                                          "missing, expected \"LORA\"")
        .in_file(context);
  if (!type->is_string()) reader.refuse("peft_type", *type, "\"LORA\"");
  if (*type->as_string() != "LORA")
    throw Error(ErrorKind::unsupported, "cannot use " + context + ": its peft_type is \"" +
                                            *type->as_string() + "\", expected \"LORA\"")
        .in_file(context);
}

}  // namespace

std::vector<std::string> AdapterConfig::unknown_fields() const {
  std::vector<std::string> names;
  for (const auto& [name, value] : other)
    if (untyped_defaults().find(name) == nullptr) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

AdapterConfig parse_adapter_config(const Json& document, const std::string& context) {
  const JsonObject* object = document.as_object();
  if (object == nullptr)
    throw Error(ErrorKind::malformed, "cannot read " + context + " as adapter_config.json: found " +
                                          std::string(document.type_name()) +
                                          ", expected an object")
        .in_file(context);
  const FieldReader reader(*object, context);
  require_lora(reader, context);

  AdapterConfig config;
  read_typed_members(reader, config);
  check_untyped_fields(reader);
  for (const auto& [name, value] : *object) {
    if (!is_typed_field(name)) {
      config.other[name] = value;
    } else if (name != "target_modules" && name != "exclude_modules") {
      // These two came from Python sets: their order in the file means nothing.
      config.spelling[name] = value;
    }
  }
  if (const auto conflict = find_conflict(config))
    throw Error(ErrorKind::malformed, "cannot use " + context + ": " + *conflict).in_file(context);
  return config;
}

AdapterConfig read_adapter_config(const std::filesystem::path& path) {
  return parse_adapter_config(read_json_file(path), path.string());
}

std::optional<std::string> find_conflict(const AdapterConfig& config) {
  if (config.task_type &&
      std::find(kTaskTypes.begin(), kTaskTypes.end(), *config.task_type) == kTaskTypes.end()) {
    std::string known;
    for (const std::string_view name : kTaskTypes)
      known += (known.empty() ? "" : ", ") + std::string(name);
    return "task_type is \"" + *config.task_type + "\", expected one of " + known;
  }
  const bool is_regex = std::holds_alternative<std::string>(config.target_modules);
  const bool has_layers = !config.layers_to_transform.empty();
  if (is_regex && has_layers)
    return "layers_to_transform cannot be used when target_modules is a string, expected a list";
  if (is_regex && !config.layers_pattern.empty())
    return "layers_pattern cannot be used when target_modules is a string, expected a list";
  const Json* spelled_layers = config.spelling.find("layers_to_transform");
  const bool has_empty_list = spelled_layers != nullptr && spelled_layers->is_array();
  if (!config.layers_pattern.empty() && !has_layers && !has_empty_list)
    return "layers_pattern is given without layers_to_transform, expected both";
  if (config.lora_bias && config.use_dora)
    return "lora_bias and use_dora are both true, expected at most one";
  if (config.lora_bias && !config.init_lora_weights.is_bool())
    return "lora_bias is true and init_lora_weights is a string, expected true or false";
  return std::nullopt;
}

Json to_json(const AdapterConfig& config) {
  JsonObject document = typed_members(config);
  if (!config.spelling.empty()) {
    AdapterConfig as_spelled;
    const std::string context = "the configuration as spelled";
    read_typed_members(FieldReader(config.spelling, context), as_spelled);
    const JsonObject canonical = typed_members(as_spelled);
    for (const auto& [name, value] : config.spelling)
      if (*canonical.find(name) == *document.find(name)) document[name] = value;
  }
  for (const auto& [name, value] : untyped_defaults()) document[name] = value;
  for (const auto& [name, value] : config.other) document[name] = value;
  document["inference_mode"] = true;
  return document;
}

std::string dump_adapter_config(const AdapterConfig& config) {
  return dump_json(to_json(config), kPythonConfigStyle);
}

}  // namespace lora
