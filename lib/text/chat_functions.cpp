#include "text/chat_functions.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <optional>

#include "text/chat_text.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

[[noreturn]] void fault(std::string what) {
  throw TemplateFault{ErrorKind::incompatible, std::move(what)};
}
[[noreturn]] void unsupported(std::string what) {
  throw TemplateFault{ErrorKind::unsupported, std::move(what)};
}

const std::string& string_of(const Value& value, const std::string& user) {
  const std::string* text = value.string();
  if (text == nullptr) fault(user + " got " + std::string(type_name(value)) + ", expected str");
  return *text;
}

// The string of an argument, null when it is left out or none.
const std::string* string_or_none(const Value* value, const std::string& user) {
  return value == nullptr || value->as<None>() ? nullptr : &string_of(*value, user);
}

bool any_affix(const std::string& text, const Arguments& arguments, bool at_start) {
  const Value* affix = arguments.find(0, "prefix");
  if (affix == nullptr) fault("startswith or endswith got no argument");
  const List one{*affix};
  const List& all = affix->list() ? *affix->list() : one;
  return std::any_of(all.begin(), all.end(), [&](const Value& item) {
    const std::string& part = string_of(item, "startswith or endswith");
    return at_start ? text.starts_with(part) : text.ends_with(part);
  });
}

Value pairs_of(const Dict& dict, RenderBudget& budget) {
  List out;
  for (const auto& [key, member] : dict.members)
    out.push_back(budget.list(List{budget.text(key), member}));
  return budget.list(std::move(out));
}

std::int64_t integer_argument(const Value* value, std::int64_t fallback) {
  if (value == nullptr || value->as<None>()) return fallback;
  std::int64_t out = 0;
  if (!as_integer(*value, out)) fault("got " + std::string(type_name(*value)) + ", expected int");
  return out;
}

std::int64_t length_of(const Value& value) {
  if (const std::string* text = value.string()) return character_count(*text);
  if (const List* list = value.list()) return static_cast<std::int64_t>(list->size());
  if (const Dict* dict = value.dict()) return static_cast<std::int64_t>(dict->members.size());
  if (value.is_undefined()) return 0;
  fault(std::string(type_name(value)) + " has no length");
}

Value to_json(const Value& value, const Arguments& arguments, RenderBudget& budget) {
  constexpr std::int64_t kMostIndent = 16;
  JsonStyle style{-1, false, false, true};
  const Value* indent = arguments.find(0, "indent");
  for (const auto& [name, argument] : arguments.named)
    if (name != "indent") unsupported("tojson with " + name);
  if (indent != nullptr) {
    const std::int64_t spaces = integer_argument(indent, -1);
    if (spaces > kMostIndent) unsupported("tojson with an indent of more than 16");
    style.indent = static_cast<int>(std::max<std::int64_t>(spaces, -1));
  }
  // A control character takes six bytes; each value a line that is indented, and a node of a tree.
  const std::uint64_t bytes = budget.written_size(value);
  budget.require(8 * bytes + bytes / 32 * static_cast<std::uint64_t>(style.indent + 1) *
                                 static_cast<std::uint64_t>(value.depth + 1));
  return budget.text(dump_json(json_of(value), style));
}

Value attribute_or_undefined(const Value& value, const std::string& name, RenderBudget& budget) {
  if (value.dict()) budget.search(*value.dict());
  budget.step();
  const Value* member = value.dict() ? value.dict()->find(name) : nullptr;
  return member ? *member : Value::undefined(name);
}

Value selected(const Value& value, const Arguments& arguments, bool keep, RenderBudget& budget) {
  const Value* attribute = arguments.find(0, "attribute");
  if (attribute == nullptr) unsupported("selectattr without an attribute");
  const Value* test = arguments.find(1, "test");
  List out;
  const Value source = listed(value, budget);
  for (const Value& item : *source.list()) {
    const Value member = attribute_or_undefined(item, string_of(*attribute, "selectattr"), budget);
    std::vector<Value> operands;
    if (arguments.positional.size() > 2) operands.push_back(arguments.positional[2]);
    const bool passes = test ? apply_test(string_of(*test, "selectattr"), member, operands, budget)
                             : is_true(member);
    if (passes == keep) out.push_back(item);
  }
  return budget.list(std::move(out));
}

}  // namespace

const Value* Arguments::find(std::size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named)
    if (key == name) return &value;
  return nullptr;
}

Value listed(const Value& value, RenderBudget& budget) {
  if (value.list()) return value;
  if (const std::string* text = value.string()) return characters(*text, budget);
  List out;
  if (const Dict* dict = value.dict(); dict && !dict->is_namespace) {
    for (const auto& [key, member] : dict->members) out.push_back(budget.text(key));
  } else if (!value.is_undefined()) {
    fault(std::string(type_name(value)) + " cannot be looped over");
  }
  return budget.list(std::move(out));
}

Value apply_filter(const std::string& name, const Value& value, const Arguments& arguments,
                   RenderBudget& budget) {
  const auto argument = [&](std::size_t i, std::string_view key) { return arguments.find(i, key); };
  const auto printed = [&] { return budget.printed(value); };
  if (name == "default" || name == "d") {
    const Value* fallback = argument(0, "default_value");
    const Value* also_false = argument(1, "boolean");
    const bool replaces =
        value.is_undefined() || (also_false && is_true(*also_false) && !is_true(value));
    return !replaces ? value : fallback ? *fallback : budget.text({});
  }
  if (name == "length" || name == "count") {
    if (value.string()) budget.look_through(value.string()->size());
    return {length_of(value)};
  }
  if (name == "tojson") return to_json(value, arguments, budget);
  if (name == "trim") {
    const std::string text = printed();
    const std::string* set = string_or_none(argument(0, "chars"), "strip");
    budget.look_through(set ? text.size() * std::max<std::size_t>(1, set->size() / 64) : 0);
    return budget.text(std::string(stripped(text, set, true, true)));
  }
  if (name == "upper") return budget.text(mapped(printed(), utf8proc_toupper));
  if (name == "lower") return budget.text(mapped(printed(), utf8proc_tolower));
  if (name == "title") return budget.text(titled(printed()));
  if (name == "capitalize") return budget.text(capitalized(printed()));
  if (name == "string") return value.string() ? value : budget.text(printed());
  if (name == "safe") return value;
  if (name == "replace") {
    const Value* from = argument(0, "old");
    const Value* to = argument(1, "new");
    if (!from || !to) fault("replace needs two arguments");
    return budget.text(replaced(printed(), string_of(*from, name), string_of(*to, name),
                                integer_argument(argument(2, "count"), -1), budget));
  }
  if (name == "join") {
    if (argument(1, "attribute")) unsupported("join with an attribute");
    const Value* separator = argument(0, "d");
    const Value source = listed(value, budget);
    return budget.text(
        joined(*source.list(), separator ? budget.printed(*separator) : std::string(), budget));
  }
  if (name == "list") return listed(value, budget);
  if (name == "items" && value.dict()) return pairs_of(*value.dict(), budget);
  if (name == "reverse" && value.string()) return budget.text(reversed(*value.string()));
  if (name == "first" || name == "last") {
    const Value source = listed(value, budget);
    const List& items = *source.list();
    if (items.empty()) return Value::undefined("the " + name + " of nothing");
    return name == "first" ? items.front() : items.back();
  }
  if (name == "reverse") {
    const Value source = listed(value, budget);
    budget.require(source.list()->size() * sizeof(Value));
    return budget.list(List(source.list()->rbegin(), source.list()->rend()));
  }
  if (name == "unique") {
    List out;
    const Value source = listed(value, budget);
    for (const Value& item : *source.list())
      if (std::none_of(out.begin(), out.end(),
                       [&](const Value& seen) { return are_equal(seen, item, budget); }))
        out.push_back(item);
    return budget.list(std::move(out));
  }
  if (name == "int") {
    std::int64_t integer = integer_argument(argument(0, "default"), 0);
    double number = 0;
    if (const std::string* text = value.string()) {
      const std::string_view digits = stripped(*text, nullptr, true, true);
      std::int64_t parsed = 0;
      const auto [end, error] =
          std::from_chars(digits.data(), digits.data() + digits.size(), parsed);
      if (error == std::errc() && end == digits.data() + digits.size()) integer = parsed;
    } else if (as_number(value, number) && number > -9e18 && number < 9e18) {
      integer = static_cast<std::int64_t>(number);
    }
    return {integer};
  }
  if (name == "map" && arguments.positional.empty()) {
    const Value* attribute = argument(0, "attribute");
    if (attribute == nullptr) unsupported("map without an attribute");
    List out;
    const Value source = listed(value, budget);
    for (const Value& item : *source.list())
      out.push_back(attribute_or_undefined(item, string_of(*attribute, name), budget));
    return budget.list(std::move(out));
  }
  if (name == "selectattr" || name == "rejectattr")
    return selected(value, arguments, name == "selectattr", budget);
  unsupported("the filter " + name);
}

bool apply_test(const std::string& name, const Value& value, const std::vector<Value>& operands,
                RenderBudget& budget) {
  std::int64_t integer = 0;
  double number = 0;
  const bool is_boolean = value.as<bool>() != nullptr;
  if (name == "defined") return !value.is_undefined();
  if (name == "undefined") return value.is_undefined();
  if (name == "none") return value.as<None>() != nullptr;
  if (name == "string") return value.string() != nullptr;
  if (name == "boolean") return is_boolean;
  if (name == "true") return is_boolean && is_true(value);
  if (name == "false") return is_boolean && !is_true(value);
  if (name == "mapping") return value.dict() != nullptr && !value.dict()->is_namespace;
  if (name == "iterable" || name == "sequence")
    return value.list() || value.dict() || value.string() || value.is_undefined();
  if (name == "number") return as_number(value, number);
  if (name == "integer") return !is_boolean && as_integer(value, integer);
  if (name == "float") return value.as<double>() != nullptr;
  if (name == "callable") return value.as<Macro>() != nullptr || value.as<Bound>() != nullptr;
  if (name == "odd" || name == "even") {
    if (!as_integer(value, integer)) fault("is " + name + " got " + std::string(type_name(value)));
    return (integer % 2 != 0) == (name == "odd");
  }
  if (name == "equalto" || name == "eq" || name == "ne") {
    if (operands.empty()) fault("is " + name + " needs an operand");
    return are_equal(value, operands[0], budget) == (name != "ne");
  }
  if (name == "in") {
    if (operands.empty()) fault("is in needs an operand");
    const Value source = listed(operands[0], budget);
    return std::any_of(source.list()->begin(), source.list()->end(),
                       [&](const Value& item) { return are_equal(item, value, budget); });
  }
  unsupported("the test " + name);
}

bool has_method(const Value& self, const std::string& name) {
  static constexpr std::array<std::string_view, 15> kOfStrings{
      "strip", "lstrip", "rstrip",  "startswith", "endswith",   "split", "rsplit", "upper",
      "lower", "title",  "replace", "join",       "capitalize", "find",  "count"};
  static constexpr std::array<std::string_view, 4> kOfDicts{"get", "items", "keys", "values"};
  if (self.string())
    return std::find(kOfStrings.begin(), kOfStrings.end(), name) != kOfStrings.end();
  if (self.dict()) return std::find(kOfDicts.begin(), kOfDicts.end(), name) != kOfDicts.end();
  return false;
}

Value call_method(const Value& self, const std::string& name, const Arguments& arguments,
                  RenderBudget& budget) {
  const auto argument = [&](std::size_t i, std::string_view key) { return arguments.find(i, key); };
  if (const Dict* dict = self.dict()) {
    if (name == "items") return pairs_of(*dict, budget);
    if (name == "keys") return listed(self, budget);
    if (name == "values") {
      List out;
      for (const auto& [key, member] : dict->members) out.push_back(member);
      return budget.list(std::move(out));
    }
    const Value* key = argument(0, "key");
    if (key == nullptr) fault("get needs a key");
    budget.search(*dict);
    const Value* member = key->string() ? dict->find(*key->string()) : nullptr;
    const Value* fallback = argument(1, "default");
    return member ? *member : fallback ? *fallback : Value::none();
  }
  const std::string& text = string_of(self, name);
  budget.look_through(text.size());
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    const std::string* set = string_or_none(argument(0, "chars"), "strip");
    budget.look_through(set ? text.size() * (set->size() / 64) : 0);
    return budget.text(std::string(stripped(text, set, name != "rstrip", name != "lstrip")));
  }
  if (name == "startswith") return {any_affix(text, arguments, true)};
  if (name == "endswith") return {any_affix(text, arguments, false)};
  if (name == "split" || name == "rsplit")
    return split(text, string_or_none(argument(0, "sep"), "split"),
                 integer_argument(argument(1, "maxsplit"), -1), name == "rsplit", budget);
  if (name == "join") {
    const Value* items = argument(0, "iterable");
    if (items == nullptr) fault("join needs a list");
    const Value source = listed(*items, budget);
    return budget.text(joined(*source.list(), text, budget));
  }
  if (name == "find" || name == "count") {
    const Value* part = argument(0, "sub");
    if (part == nullptr || arguments.positional.size() != 1) unsupported(name + " with a range");
    const std::string& needle = string_of(*part, name);
    if (name == "find") {
      const std::size_t at = find_part(text, needle);
      if (at == std::string::npos) return {std::int64_t{-1}};
      return {character_count(std::string_view(text).substr(0, at))};
    }
    if (needle.empty()) unsupported("counting an empty string");
    std::int64_t count = 0;
    for (std::size_t at = find_part(text, needle); at != std::string::npos;
         at = find_part(text, needle, at + needle.size()))
      ++count;
    return {count};
  }
  return apply_filter(name, self, arguments, budget);
}

}  // namespace lora::text
