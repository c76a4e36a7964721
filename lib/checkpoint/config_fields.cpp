#include "checkpoint/config_fields.h"

namespace lora {
namespace {

std::string shown(const Json& value) {
  const std::string text = dump_json(value, kCompactStyle);
  return text.size() <= 40 ? text : std::string(value.type_name());
}

}  // namespace

Error ConfigFields::wrong(std::string_view key, const std::string& found,
                          const std::string& expected) const {
  return Error(ErrorKind::malformed, "cannot use " + context_ + ": field \"" + prefix_ +
                                         std::string(key) + "\" is " + found + ", expected " +
                                         expected)
      .in_file(context_);
}

Error ConfigFields::missing(std::string_view key, const std::string& expected) const {
  return Error(ErrorKind::malformed, "cannot use " + context_ + ": field \"" + prefix_ +
                                         std::string(key) + "\" is missing, expected " + expected)
      .in_file(context_);
}

const Json* ConfigFields::find(std::string_view key) const {
  const Json* value = object_.find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

std::optional<std::int64_t> ConfigFields::integer(std::string_view key, std::int64_t least,
                                                  std::int64_t most) const {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto number = value->as_int();
  if (!number || *number < least || *number > most)
    throw wrong(key, shown(*value),
                "an integer from " + std::to_string(least) + " to " + std::to_string(most));
  return number;
}

std::optional<double> ConfigFields::number(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto number = value->as_double();
  if (!number) throw wrong(key, shown(*value), "a number");
  return number;
}

double ConfigFields::positive(std::string_view key, double fallback) const {
  const double value = number(key).value_or(fallback);
  if (!(value > 0 && value < 1e300)) throw wrong(key, dump_json(value), "a positive number");
  return value;
}

std::optional<bool> ConfigFields::boolean(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_bool()) throw wrong(key, shown(*value), "true or false");
  return value->as_bool();
}

std::optional<std::string> ConfigFields::text(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) throw wrong(key, shown(*value), "a string");
  return *value->as_string();
}

std::optional<std::vector<std::string>> ConfigFields::texts(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  const JsonArray* array = value->as_array();
  if (array == nullptr) throw wrong(key, shown(*value), "a list of strings");
  std::vector<std::string> texts;
  for (const Json& item : *array) {
    if (!item.is_string()) throw wrong(key, shown(*value), "a list of strings");
    texts.push_back(*item.as_string());
  }
  return texts;
}

std::optional<std::vector<std::int64_t>> ConfigFields::integers(std::string_view key,
                                                                std::int64_t least,
                                                                std::int64_t most) const {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto refuse = [&] {
    return wrong(
        key, shown(*value),
        "a list of integers from " + std::to_string(least) + " to " + std::to_string(most));
  };
  const JsonArray* array = value->as_array();
  if (array == nullptr) throw refuse();
  std::vector<std::int64_t> integers;
  for (const Json& item : *array) {
    const auto number = item.as_int();
    if (!number || *number < least || *number > most) throw refuse();
    integers.push_back(*number);
  }
  return integers;
}

std::optional<std::vector<std::int64_t>> ConfigFields::ids(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  // Negative ids occur in published files (-1 for "none"); they match no token.
  constexpr std::int64_t kLeast = -1;
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  if (value->is_array()) return integers(key, kLeast, kMost);
  return std::vector{*integer(key, kLeast, kMost)};
}

const Json* ConfigFields::object(std::string_view key) const {
  const Json* value = find(key);
  if (value != nullptr && !value->is_object()) throw wrong(key, shown(*value), "an object");
  return value;
}

}  // namespace lora
