#include "text/chat_value.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>

#include "lora/base/error.h"
#include "text/chat_budget.h"
#include "text/utf8.h"

namespace lora::text {

Value Value::undefined(std::string_view name) {
  constexpr std::size_t kMost = 100;
  return {Undefined{name.size() > kMost ? std::string(name.substr(0, kMost)) + "..."
                                        : std::string(name)}};
}

Value Value::of(List items) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth);
  return {std::make_shared<List>(std::move(items)), depth + 1};
}

Value Value::of(Dict dict) {
  int depth = 0;
  for (const auto& [key, member] : dict.members) depth = std::max(depth, member.depth);
  return {std::make_shared<Dict>(std::move(dict)), depth + 1};
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : members)
    if (name == key) return &value;
  return nullptr;
}

void Dict::set(std::string_view key, Value value) {
  for (auto& [name, old] : members) {
    if (name != key) continue;
    old = std::move(value);
    return;
  }
  members.emplace_back(std::string(key), std::move(value));
}

Value value_of(const Json& json) {
  if (json.is_null()) return Value::none();
  if (const auto boolean = json.as_bool()) return {*boolean};
  if (const auto integer = json.as_int()) return {*integer};
  if (const auto number = json.as_double()) return {*number};
  if (const std::string* text = json.as_string()) return Value::of(*text);
  if (const JsonArray* array = json.as_array()) {
    List items;
    for (const Json& item : *array) items.push_back(value_of(item));
    return Value::of(std::move(items));
  }
  Dict dict;
  for (const auto& [key, member] : *json.as_object())
    dict.members.emplace_back(key, value_of(member));
  return Value::of(std::move(dict));
}

Json json_of(const Value& value) {
  if (value.as<None>()) return nullptr;
  if (const bool* boolean = value.as<bool>()) return *boolean;
  if (const auto* integer = value.as<std::int64_t>()) return *integer;
  if (const double* number = value.as<double>()) return *number;
  if (const std::string* text = value.string()) return *text;
  if (const List* list = value.list(); list && value.shape <= Shape::tuple) {
    JsonArray array;
    for (const Value& item : *list) array.push_back(json_of(item));
    return array;
  }
  if (const Dict* dict = value.dict()) {
    JsonObject object;
    for (const auto& [key, member] : dict->members) object[key] = json_of(member);
    return object;
  }
  throw TemplateFault{ErrorKind::incompatible,
                      "cannot write " + std::string(type_name(value)) + " as JSON"};
}

bool is_true(const Value& value) {
  if (const bool* boolean = value.as<bool>()) return *boolean;
  if (const auto* integer = value.as<std::int64_t>()) return *integer != 0;
  if (const double* number = value.as<double>()) return *number != 0;
  if (const std::string* text = value.string()) return !text->empty();
  if (const List* list = value.list()) return value.shape == Shape::generator || !list->empty();
  if (const Dict* dict = value.dict()) return dict->is_namespace || !dict->members.empty();
  return value.as<Macro>() != nullptr || value.as<Bound>() != nullptr;
}

namespace {

// What Python's repr shows as it is.
bool is_printable(std::uint32_t code_point) {
  if (code_point < 0x7F) return code_point >= 0x20;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

void append_escaped(std::string& out, std::uint32_t code_point) {
  const int digits = code_point < 0x100 ? 2 : code_point < 0x10000 ? 4 : 8;
  out += digits == 2 ? "\\x" : digits == 4 ? "\\u" : "\\U";
  for (int i = digits - 1; i >= 0; --i) out += "0123456789abcdef"[(code_point >> (4 * i)) & 15];
}

}  // namespace

std::string text_of(const Value& value) {
  if (const std::string* text = value.string()) return *text;
  if (value.is_undefined()) return {};
  return repr_of(value);
}

std::string repr_of(const Value& value) {
  if (value.as<None>()) return "None";
  if (value.is_undefined()) return "Undefined";
  if (const bool* boolean = value.as<bool>()) return *boolean ? "True" : "False";
  if (const auto* integer = value.as<std::int64_t>()) return std::to_string(*integer);
  if (const double* number = value.as<double>()) return dump_json(*number);
  if (const std::string* text = value.string()) {
    // Python prefers single quotes and switches only when that saves escaping.
    const bool has_single = text->find('\'') != std::string::npos;
    const char quote = has_single && text->find('"') == std::string::npos ? '"' : '\'';
    std::string out(1, quote);
    std::size_t length = 0;
    for (std::size_t i = 0; i < text->size(); i += length) {
      const std::uint32_t code_point = utf8_at(*text, i, length);
      const char c = length == 1 ? (*text)[i] : '\0';
      if (c == '\n') {
        out += "\\n";
      } else if (c == '\r') {
        out += "\\r";
      } else if (c == '\t') {
        out += "\\t";
      } else if (!is_printable(code_point)) {
        append_escaped(out, code_point);
      } else {
        if (c == quote || c == '\\') out += '\\';
        out.append(*text, i, length);
      }
    }
    return out += quote;
  }
  if (const List* list = value.list(); list && value.shape <= Shape::tuple) {
    const bool is_tuple = value.shape == Shape::tuple;
    std::string out(1, is_tuple ? '(' : '[');
    for (const Value& item : *list) out.append(out.size() > 1 ? ", " : "").append(repr_of(item));
    if (is_tuple && list->size() == 1) out += ',';
    return out += is_tuple ? ')' : ']';
  }
  if (const Dict* dict = value.dict(); dict && !dict->is_namespace) {
    std::string out = "{";
    for (const auto& [key, member] : dict->members)
      out.append(out.size() > 1 ? ", " : "")
          .append(repr_of(Value::of(key)))
          .append(": ")
          .append(repr_of(member));
    return out += '}';
  }
  throw TemplateFault{ErrorKind::unsupported, "printing a " + std::string(type_name(value))};
}

bool as_integer(const Value& value, std::int64_t& out) {
  if (const bool* boolean = value.as<bool>()) {
    out = *boolean ? 1 : 0;
    return true;
  }
  const auto* integer = value.as<std::int64_t>();
  if (integer == nullptr) return false;
  out = *integer;
  return true;
}

bool as_number(const Value& value, double& out) {
  std::int64_t integer = 0;
  if (as_integer(value, integer)) {
    out = static_cast<double>(integer);
    return true;
  }
  const double* number = value.as<double>();
  if (number == nullptr) return false;
  out = *number;
  return true;
}

bool are_equal(const Value& a, const Value& b, RenderBudget& budget) {
  budget.step();
  double x = 0;
  double y = 0;
  if (as_number(a, x) && as_number(b, y)) return x == y;
  if (a.data.index() != b.data.index()) return false;
  if (const std::string* text = a.string()) {
    budget.look_through(std::min(text->size(), b.string()->size()));
    return *text == *b.string();
  }
  if (const List* list = a.list())
    return a.shape == b.shape &&
           std::equal(list->begin(), list->end(), b.list()->begin(), b.list()->end(),
                      [&](const Value& left, const Value& right) {
                        return are_equal(left, right, budget);
                      });
  if (const Dict* dict = a.dict())
    return dict->members.size() == b.dict()->members.size() &&
           std::all_of(dict->members.begin(), dict->members.end(), [&](const auto& member) {
             budget.search(*b.dict());
             const Value* other = b.dict()->find(member.first);
             return other != nullptr && are_equal(member.second, *other, budget);
           });
  return a.is_undefined() || a.as<None>() != nullptr;
}

std::string_view type_name(const Value& value) {
  if (value.is_undefined()) return "an undefined value";
  if (value.as<None>()) return "NoneType";
  if (value.as<bool>()) return "bool";
  if (value.as<std::int64_t>()) return "int";
  if (value.as<double>()) return "float";
  if (value.string()) return "str";
  if (value.list()) {
    constexpr std::array<std::string_view, 5> kShapes{"list", "tuple", "range", "view of a dict",
                                                      "generator"};
    return kShapes[static_cast<std::size_t>(value.shape)];
  }
  if (value.dict()) return value.dict()->is_namespace ? "namespace" : "dict";
  return "function";
}

}  // namespace lora::text
