#include "text/component.h"

#include <utility>

#include "text/regex.h"
#include "text/utf8.h"

namespace lora::text {

Error unsupported_component(const std::string& part, const std::string& what,
                            const std::string& context) {
  return Error(ErrorKind::unsupported,
               "cannot read tokenizer " + context + ": " + part + " " + what + " is not supported")
      .in_file(context);
}

Error malformed_tokenizer(const std::string& what, const std::string& context) {
  return Error(ErrorKind::malformed, "cannot read tokenizer " + context + ": " + what)
      .in_file(context);
}

void require_few_steps(std::size_t count, const std::string& part, const std::string& context) {
  constexpr std::size_t kMost = 256;
  if (count > kMost)
    throw unsupported_component(part, "with more than " + std::to_string(kMost) + " steps",
                                context);
}

Component::Component(const Json& document, std::string part, std::string context)
    : document_(document), part_(std::move(part)), context_(std::move(context)) {
  const Json* type = document.find("type");
  if (type == nullptr || type->as_string() == nullptr)
    throw malformed_tokenizer(part_ + " has no \"type\"", context_);
  type_ = *type->as_string();
}

Error Component::wrong(std::string_view key, std::string_view expected) const {
  const Json* value = document_.find(key);
  return malformed_tokenizer(part_ + " " + type_ + " has \"" + std::string(key) + "\" " +
                                 (value ? std::string(value->type_name()) : "absent") +
                                 ", expected " + std::string(expected),
                             context_);
}

bool Component::boolean(std::string_view key, bool fallback) const {
  const Json* value = document_.find(key);
  if (value == nullptr || value->is_null()) return fallback;
  const auto result = value->as_bool();
  if (!result) throw wrong(key, "a boolean");
  return *result;
}

std::string Component::string(std::string_view key) const {
  const std::string* value = member(key).as_string();
  if (value == nullptr) throw wrong(key, "a string");
  return *value;
}

std::string Component::character(std::string_view key) const {
  std::string value = string(key);
  if (value.empty() || value.size() != utf8_length(static_cast<unsigned char>(value.front())))
    throw wrong(key, "a string of one character");
  return value;
}

std::size_t Component::count(std::string_view key) const {
  const auto value = member(key).as_int();
  if (!value || *value < 0) throw wrong(key, "an integer of at least 0");
  return static_cast<std::size_t>(*value);
}

bool Component::has(std::string_view key) const {
  const Json* value = document_.find(key);
  return value != nullptr && !value->is_null();
}

const JsonArray& Component::array(std::string_view key) const {
  const JsonArray* value = member(key).as_array();
  if (value == nullptr) throw wrong(key, "an array");
  return *value;
}

std::string Component::pattern(std::string_view key) const {
  const Json& value = member(key);
  if (const Json* regex = value.find("Regex"); regex && regex->is_string())
    return *regex->as_string();
  if (const Json* plain = value.find("String"); plain && plain->is_string())
    return escape_for_regex(*plain->as_string());
  throw wrong(key, "an object with \"Regex\" or \"String\"");
}

const Json& Component::member(std::string_view key) const {
  const Json* value = document_.find(key);
  if (value == nullptr) throw wrong(key, "a value");
  return *value;
}

}  // namespace lora::text
