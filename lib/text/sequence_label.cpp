#include "text/sequence_label.h"

#include <cmath>
#include <limits>
#include <optional>
#include <utility>

namespace lora::text {
namespace {

std::string expected(const LabelOptions& options) {
  const std::string a_class = "a class from 0 to " + std::to_string(options.count - 1);
  const std::string values =
      options.count == 1 ? "a number" : "an array of " + std::to_string(options.count) + " numbers";
  if (!options.may_be_values) return a_class;
  return options.may_be_class ? a_class + " or " + values : values;
}

std::optional<float> value_of(const Json& json) {
  const auto value = json.as_double();
  if (!value || !(std::abs(*value) <= std::numeric_limits<float>::max())) return std::nullopt;
  return static_cast<float>(*value);
}

std::string shown(const Json& json) {
  return json.is_number() ? dump_json(json, kCompactStyle) : std::string(json.type_name());
}

}  // namespace

std::string read_label(const Json& line, const LabelOptions& options, SequenceLabel& label) {
  const Json* json = line.find("label");
  if (json == nullptr) return "it has no \"label\"";
  const auto wrong = [&](const std::string& found) {
    return "\"label\" is " + found + ", expected " + expected(options);
  };
  const auto a_class = json->as_int();
  if (options.may_be_class && a_class && *a_class >= 0 && *a_class < options.count) {
    label.class_id = *a_class;
    return {};
  }
  if (!options.may_be_values) return wrong(shown(*json));
  const JsonArray* array = json->as_array();
  const JsonArray alone{*json};
  if (array == nullptr && options.count == 1) array = &alone;
  if (array == nullptr) return wrong(shown(*json));
  if (static_cast<std::int64_t>(array->size()) != options.count)
    return wrong("an array of " + std::to_string(array->size()));
  for (const Json& item : *array) {
    const auto value = value_of(item);
    if (!value) return wrong(array == &alone ? shown(item) : "an array with " + shown(item));
    label.values.push_back(*value);
  }
  return {};
}

std::string SequenceLabels::add(const SequenceLabel& label) {
  const bool is_class = label.values.empty();
  if (is_class && !values_.empty())
    return "\"label\" is a class, those of the lines before are values";
  if (!is_class && !classes_.empty())
    return "\"label\" holds values, those of the lines before are classes";
  if (is_class) {
    classes_.push_back(label.class_id);
  } else {
    values_each_ = static_cast<std::int64_t>(label.values.size());
    values_.insert(values_.end(), label.values.begin(), label.values.end());
  }
  return {};
}

Tensor SequenceLabels::take() {
  const std::vector<std::int64_t> classes = std::exchange(classes_, {});
  const std::vector<float> values = std::exchange(values_, {});
  if (values.empty()) return Tensor::from_i64({static_cast<std::int64_t>(classes.size())}, classes);
  const auto rows = static_cast<std::int64_t>(values.size()) / values_each_;
  return Tensor::from_f32({rows, values_each_}, values);
}

}  // namespace lora::text
