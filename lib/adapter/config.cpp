#include "lora/adapter/config.h"

#include <algorithm>
#include <cmath>

#include "adapter/config_fields.h"
#include "lora/adapter/config_check.h"
#include "lora/base/error.h"

namespace lora {
namespace {

constexpr const char* kWrittenPeftVersion = "0.21.2";
// The last release that read stacks of experts as files without a version are read.
constexpr const char* kLastTransposedVersion = "0.18.1";

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

// The layout of experts hangs on the version alone; a newer one would turn them round.
const char* version_for(const AdapterConfig& config) {
  const Json* parameters = config.other.find("target_parameters");
  return parameters == nullptr || parameters->is_null() ? kWrittenPeftVersion
                                                        : kLastTransposedVersion;
}

JsonObject members_of(const AdapterConfig& config) {
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
          {"peft_version", config.peft_version.value_or(version_for(config))},
          {"r", config.rank},
          {"rank_pattern", pattern_json(config.rank_pattern)},
          {"revision", text_json(config.revision)},
          {"target_modules", selector_json(config.target_modules)},
          {"task_type", text_json(config.task_type)},
          {"use_dora", config.use_dora},
          {"use_rslora", config.use_rslora}};
}

void read_typed_members(const FieldReader& reader, AdapterConfig& config) {
  for (const TypedMember& member : typed_members()) member.read(reader, config);
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
  for (const auto& [field, fallback] : untyped_defaults()) check_untyped_field(reader, field);
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
  std::vector<ConfigProblem> conflicts = find_conflicts(config);
  if (conflicts.empty()) return std::nullopt;
  return std::move(conflicts.front().message);
}

Json to_json(const AdapterConfig& config) {
  JsonObject document = members_of(config);
  if (!config.spelling.empty()) {
    AdapterConfig as_spelled;
    const std::string context = "the configuration as spelled";
    read_typed_members(FieldReader(config.spelling, context), as_spelled);
    const JsonObject canonical = members_of(as_spelled);
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
