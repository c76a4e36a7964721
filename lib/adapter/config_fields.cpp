#include "adapter/config_fields.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "lora/base/error.h"

namespace lora {
namespace {

// Far above any real rank, and small enough that products of two stay exact.
constexpr std::int64_t kMaxPositive = 2147483647;
constexpr std::string_view kPositive = "an integer from 1 to 2147483647";

bool is_positive(const Json& value) {
  const auto number = value.as_int();
  return number && *number >= 1 && *number <= kMaxPositive;
}

bool is_array_of(const Json& value, bool (*accepts)(const Json&)) {
  const JsonArray* array = value.as_array();
  return array != nullptr && std::all_of(array->begin(), array->end(), accepts);
}

bool is_index(const Json& value) { return value.as_uint().has_value(); }
bool is_index_list(const Json& value) { return is_array_of(value, is_index); }

bool is_layer_range(const Json& value) {
  return is_index_list(value) && value.as_array()->size() == 2;
}

bool is_token_selection(const Json& value) {
  if (const JsonObject* object = value.as_object())
    return std::all_of(object->begin(), object->end(),
                       [](const JsonMember& member) { return is_index_list(member.second); });
  return is_index_list(value);
}

}  // namespace

void FieldReader::refuse(std::string_view field, const Json& found,
                         std::string_view expected) const {
  std::string value = dump_json(found, {});
  constexpr std::size_t kShown = 60;
  if (value.size() > kShown) value = value.substr(0, kShown) + "...";
  throw Error(ErrorKind::malformed, "cannot read " + context_ + ": field \"" + std::string(field) +
                                        "\" is " + value + " (" + std::string(found.type_name()) +
                                        "), expected " + std::string(expected))
      .in_file(context_);
}

bool FieldReader::boolean(std::string_view field, bool fallback) const {
  const Json* value = find(field);
  if (value == nullptr) return fallback;
  if (!value->is_bool()) refuse(field, *value, "true or false");
  return *value->as_bool();
}

std::int64_t FieldReader::positive(std::string_view field, std::int64_t fallback) const {
  const Json* value = find(field);
  if (value == nullptr) return fallback;
  if (!is_positive(*value)) refuse(field, *value, kPositive);
  return *value->as_int();
}

double FieldReader::number(std::string_view field, double fallback) const {
  const Json* value = find(field);
  if (value == nullptr) return fallback;
  const auto number = value->as_double();
  if (!number || !std::isfinite(*number)) refuse(field, *value, "a finite number");
  return *number;
}

std::optional<std::string> FieldReader::text_or_null(std::string_view field) const {
  const Json* value = find(field);
  if (value == nullptr || value->is_null()) return std::nullopt;
  if (!value->is_string()) refuse(field, *value, "a string or null");
  return *value->as_string();
}

std::string FieldReader::one_of(std::string_view field, std::string_view fallback,
                                std::initializer_list<std::string_view> allowed) const {
  const Json* value = find(field);
  if (value == nullptr) return std::string(fallback);
  const std::string* text = value->as_string();
  if (text == nullptr || std::find(allowed.begin(), allowed.end(), *text) == allowed.end()) {
    std::string expected;
    for (const std::string_view name : allowed)
      expected += (expected.empty() ? "" : " or ") + std::string(name);
    refuse(field, *value, expected);
  }
  return *text;
}

std::vector<std::string> FieldReader::names(std::string_view field, const JsonArray& array) const {
  std::vector<std::string> result;
  for (const Json& item : array) {
    if (!item.is_string()) refuse(field, item, "strings in the list");
    result.push_back(*item.as_string());
  }
  return result;
}

ModuleSelector FieldReader::selector(std::string_view field) const {
  const Json* value = find(field);
  if (value == nullptr || value->is_null()) return {};
  if (const std::string* text = value->as_string()) return *text;
  if (const JsonArray* array = value->as_array()) return names(field, *array);
  refuse(field, *value, "a list of strings, a string or null");
}

std::vector<std::string> FieldReader::names_or_null(std::string_view field,
                                                    bool allow_scalar) const {
  const Json* value = find(field);
  if (value == nullptr || value->is_null()) return {};
  if (const JsonArray* array = value->as_array()) return names(field, *array);
  if (!allow_scalar || !value->is_string())
    refuse(field, *value,
           allow_scalar ? "a string, a list of strings or null" : "a list of strings or null");
  // PEFT treats the empty string as "no pattern".
  if (value->as_string()->empty()) return {};
  return {*value->as_string()};
}

std::vector<std::int64_t> FieldReader::indices_or_null(std::string_view field) const {
  constexpr std::string_view expected = "a layer index, a list of layer indices or null";
  const Json* value = find(field);
  if (value == nullptr || value->is_null()) return {};
  const auto index = [&](const Json& item) {
    const auto number = item.as_int();
    if (!number || *number < 0) refuse(field, item, expected);
    return *number;
  };
  if (value->is_integer()) return {index(*value)};
  const JsonArray* array = value->as_array();
  if (array == nullptr) refuse(field, *value, expected);
  std::vector<std::int64_t> result;
  for (const Json& item : *array) result.push_back(index(item));
  return result;
}

NumberPattern FieldReader::pattern(std::string_view field, bool positive_integers) const {
  const Json* value = find(field);
  if (value == nullptr || value->is_null()) return {};
  const JsonObject* object = value->as_object();
  if (object == nullptr) refuse(field, *value, "an object of names to numbers");
  NumberPattern result;
  for (const auto& [key, item] : *object) {
    const std::string entry = std::string(field) + "[" + key + "]";
    const auto number = item.as_double();
    if (positive_integers) {
      if (!is_positive(item)) refuse(entry, item, kPositive);
    } else if (!number || !std::isfinite(*number)) {
      refuse(entry, item, "a finite number");
    }
    result.emplace_back(key, *number);
  }
  return result;
}

const JsonObject& untyped_defaults() {
  static const JsonObject defaults{{"alora_invocation_tokens", nullptr},
                                   {"arrow_config", nullptr},
                                   {"corda_config", nullptr},
                                   {"ensure_weight_tying", false},
                                   {"eva_config", nullptr},
                                   {"inference_mode", true},
                                   {"kasa_config", nullptr},
                                   {"layer_replication", nullptr},
                                   {"loftq_config", JsonObject()},
                                   {"lora_ga_config", nullptr},
                                   {"megatron_config", nullptr},
                                   {"megatron_core", "megatron.core"},
                                   {"monteclora_config", nullptr},
                                   {"qalora_group_size", 16},
                                   {"target_parameters", nullptr},
                                   {"trainable_token_indices", nullptr},
                                   {"use_bdlora", nullptr},
                                   {"use_qalora", false},
                                   {"velora_config", nullptr}};
  return defaults;
}

void check_untyped_field(const FieldReader& reader, std::string_view field) {
  const auto require = [&](bool (*accepts)(const Json&), std::string_view expected) {
    const Json* value = reader.find(field);
    if (value != nullptr && !value->is_null() && !accepts(*value))
      reader.refuse(field, *value, expected);
  };
  if (field == "ensure_weight_tying" || field == "inference_mode" || field == "use_qalora") {
    reader.boolean(field, false);
  } else if (field == "qalora_group_size") {
    reader.positive(field, 16);
  } else if (field == "megatron_core") {
    reader.text_or_null(field);
  } else if (field == "target_parameters") {
    reader.names_or_null(field, false);
  } else if (field == "alora_invocation_tokens") {
    require(is_index_list, "a list of token ids or null");
  } else if (field == "trainable_token_indices") {
    require(is_token_selection, "a list of token ids, an object of names to such lists, or null");
  } else if (field == "layer_replication") {
    require([](const Json& value) { return is_array_of(value, is_layer_range); },
            "a list of [start, end) pairs or null");
  } else {
    require([](const Json& value) { return value.is_object(); }, "an object or null");
  }
}

}  // namespace lora
