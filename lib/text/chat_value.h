// Values of the template language, with Python's rules for truth, printing and comparison.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "lora/format/json.h"

namespace lora::text {

struct Value;
struct Statement;
class RenderBudget;

struct Undefined {
  std::string name;  ///< what was looked up, for messages
};
struct None {};
using List = std::vector<Value>;
struct Dict {
  std::vector<std::pair<std::string, Value>> members;
  bool is_namespace = false;  ///< attributes may be set
  const Value* find(std::string_view key) const;
  void set(std::string_view key, Value value);
};
struct Macro {
  const Statement* definition;
  /// What it sees besides the template's own names; null where it is defined outside any scope.
  std::shared_ptr<const std::vector<Dict>> surroundings;
};
/// A method taken from a value, or a built-in function (then `self` is undefined).
struct Bound {
  std::shared_ptr<const Value> self;
  std::string name;
};

/// What Python has where a Value holds a List.
enum class Shape : std::uint8_t {
  list,
  tuple,
  range,
  view,       ///< of a dictionary: without an order of its own to be indexed
  generator,  ///< of a filter: whoever looks through it uses it up
};

struct Value {
  // What may be large is shared: a step that passes a value on copies a pointer.
  std::variant<Undefined, None, bool, std::int64_t, double, std::shared_ptr<const std::string>,
               std::shared_ptr<List>, std::shared_ptr<Dict>, Macro, Bound>
      data;
  int depth = 0;              ///< levels of lists and dictionaries; a namespace may have got more
  Shape shape = Shape::list;  ///< of a List

  template <typename T>
  const T* as() const {
    return std::get_if<T>(&data);
  }
  const List* list() const {
    const auto* p = as<std::shared_ptr<List>>();
    return p ? p->get() : nullptr;
  }
  const Dict* dict() const {
    const auto* p = as<std::shared_ptr<Dict>>();
    return p ? p->get() : nullptr;
  }
  const std::string* string() const {
    const auto* p = as<std::shared_ptr<const std::string>>();
    return p ? p->get() : nullptr;
  }
  bool is_undefined() const { return as<Undefined>() != nullptr; }

  /// A long `name` is cut.
  static Value undefined(std::string_view name);
  static Value none() { return {None{}}; }
  /// Values that are there before a rendering begins; during one RenderBudget makes them.
  static Value of(std::string text) {
    return {std::make_shared<const std::string>(std::move(text))};
  }
  static Value of(List items);
  static Value of(Dict members);
};

Value value_of(const Json& json);

/// Throws TemplateFault(incompatible) for a value JSON cannot hold (a macro, an undefined name).
Json json_of(const Value& value);

bool is_true(const Value& value);

/// What `{{ value }}` prints: Python's str(). `repr_of` quotes strings.
std::string text_of(const Value& value);
std::string repr_of(const Value& value);

bool are_equal(const Value& a, const Value& b, RenderBudget& budget);

/// Python's name of the type ("str", "NoneType"), for messages.
std::string_view type_name(const Value& value);

/// Numbers as double; null pointer semantics through the return value.
bool as_number(const Value& value, double& out);
bool as_integer(const Value& value, std::int64_t& out);  ///< booleans count, as in Python

}  // namespace lora::text
