#include "text/chat_functions.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <optional>

#include "text/unicode_ranges.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

[[noreturn]] void fault(std::string what) { throw TemplateFault{false, std::move(what)}; }
[[noreturn]] void unsupported(std::string what) { throw TemplateFault{true, std::move(what)}; }

const std::string& string_of(const Value& value, const std::string& user) {
  const std::string* text = value.string();
  if (text == nullptr) fault(user + " got " + std::string(type_name(value)) + ", expected str");
  return *text;
}

std::vector<std::string> characters(std::string_view text) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_length(static_cast<unsigned char>(text[i]));
    out.emplace_back(text.substr(i, length));
    i += length;
  }
  return out;
}

// Python also strips the four separators U+001C to U+001F.
bool is_python_space(std::uint32_t c) { return is_white_space(c) || (c >= 0x1C && c <= 0x1F); }

std::string stripped(const std::string& text, const Value* set, bool left, bool right) {
  std::vector<std::string> parts = characters(text);
  const bool has_set = set != nullptr && set->as<None>() == nullptr;
  const std::vector<std::string> drop =
      has_set ? characters(string_of(*set, "strip")) : std::vector<std::string>{};
  const auto goes = [&](const std::string& part) {
    if (has_set) return std::find(drop.begin(), drop.end(), part) != drop.end();
    std::size_t length = 0;
    return is_python_space(utf8_at(part, 0, length));
  };
  auto begin = parts.begin();
  auto end = parts.end();
  while (left && begin != end && goes(*begin)) ++begin;
  while (right && begin != end && goes(*std::prev(end))) --end;
  std::string out;
  for (; begin != end; ++begin) out += *begin;
  return out;
}

std::string mapped(const std::string& text, utf8proc_int32_t (*map)(utf8proc_int32_t)) {
  std::string out;
  std::size_t length = 0;
  for (std::size_t i = 0; i < text.size(); i += length) {
    const auto code_point = static_cast<utf8proc_int32_t>(utf8_at(text, i, length));
    // The one letter in wide use whose upper case is two letters.
    if (map == utf8proc_toupper && code_point == 0xDF) {
      out += "SS";
    } else {
      append_utf8(out, static_cast<std::uint32_t>(map(code_point)));
    }
  }
  return out;
}

std::string capitalized(const std::string& text) {
  if (text.empty()) return text;
  const std::size_t first = utf8_length(static_cast<unsigned char>(text[0]));
  return mapped(text.substr(0, first), utf8proc_totitle) +
         mapped(text.substr(first), utf8proc_tolower);
}

std::string titled(const std::string& text) {
  std::string out;
  bool in_word = false;
  for (const std::string& character : characters(text)) {
    std::size_t length = 0;
    const bool is_letter = contains(letter_ranges(), utf8_at(character, 0, length));
    out +=
        !is_letter ? character : mapped(character, in_word ? utf8proc_tolower : utf8proc_totitle);
    in_word = is_letter;
  }
  return out;
}

std::string replaced(const std::string& text, const std::string& from, const std::string& to,
                     std::int64_t limit) {
  if (from.empty()) unsupported("replacing an empty string");
  std::string out;
  std::size_t covered = 0;
  for (std::size_t at = text.find(from); at != std::string::npos && limit != 0;
       at = text.find(from, covered)) {
    out.append(text, covered, at - covered).append(to);
    covered = at + from.size();
    --limit;
  }
  return out.append(text, covered);
}

List split(const std::string& text, const Value* separator, std::int64_t limit, bool from_right) {
  std::vector<std::string> parts;
  if (separator == nullptr || separator->as<None>()) {
    if (limit >= 0) unsupported("split at white space with a limit");
    std::string word;
    for (const std::string& character : characters(text)) {
      std::size_t length = 0;
      if (!is_python_space(utf8_at(character, 0, length))) {
        word += character;
      } else if (!word.empty()) {
        parts.push_back(std::exchange(word, {}));
      }
    }
    if (!word.empty()) parts.push_back(std::move(word));
  } else {
    const std::string& mark = string_of(*separator, "split");
    if (mark.empty()) fault("split got an empty separator");
    std::string rest = text;
    for (; limit != 0; --limit) {
      const std::size_t at = from_right ? rest.rfind(mark) : rest.find(mark);
      if (at == std::string::npos) break;
      if (from_right) {
        parts.push_back(rest.substr(at + mark.size()));
        rest.resize(at);
      } else {
        parts.push_back(rest.substr(0, at));
        rest.erase(0, at + mark.size());
      }
    }
    parts.push_back(std::move(rest));
    if (from_right) std::reverse(parts.begin(), parts.end());
  }
  List out;
  for (std::string& part : parts) out.push_back(Value::of(std::move(part)));
  return out;
}

std::string joined(const List& items, const std::string& separator) {
  std::string out;
  for (std::size_t i = 0; i < items.size(); ++i)
    out.append(i == 0 ? "" : separator).append(text_of(items[i]));
  return out;
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

List pairs_of(const Dict& dict) {
  List out;
  for (const auto& [key, member] : dict.members)
    out.push_back(Value::of(List{Value::of(key), member}));
  return out;
}

std::int64_t integer_argument(const Value* value, std::int64_t fallback) {
  if (value == nullptr || value->as<None>()) return fallback;
  std::int64_t out = 0;
  if (!as_integer(*value, out)) fault("got " + std::string(type_name(*value)) + ", expected int");
  return out;
}

std::int64_t length_of(const Value& value) {
  if (const std::string* text = value.string())
    return static_cast<std::int64_t>(characters(*text).size());
  if (const List* list = value.list()) return static_cast<std::int64_t>(list->size());
  if (const Dict* dict = value.dict()) return static_cast<std::int64_t>(dict->members.size());
  if (value.is_undefined()) return 0;
  fault(std::string(type_name(value)) + " has no length");
}

Value to_json(const Value& value, const Arguments& arguments) {
  JsonStyle style{-1, false, false, true};
  const Value* indent = arguments.find(0, "indent");
  for (const auto& [name, argument] : arguments.named)
    if (name != "indent") unsupported("tojson with " + name);
  if (indent != nullptr) style.indent = static_cast<int>(integer_argument(indent, -1));
  return Value::of(dump_json(json_of(value), style));
}

Value attribute_or_undefined(const Value& value, const std::string& name) {
  const Value* member = value.dict() ? value.dict()->find(name) : nullptr;
  return member ? *member : Value::undefined(name);
}

Value selected(const Value& value, const Arguments& arguments, bool keep) {
  const Value* attribute = arguments.find(0, "attribute");
  if (attribute == nullptr) unsupported("selectattr without an attribute");
  const Value* test = arguments.find(1, "test");
  List out;
  for (const Value& item : items_of(value)) {
    const Value member = attribute_or_undefined(item, string_of(*attribute, "selectattr"));
    std::vector<Value> operands;
    if (arguments.positional.size() > 2) operands.push_back(arguments.positional[2]);
    const bool passes =
        test ? apply_test(string_of(*test, "selectattr"), member, operands) : is_true(member);
    if (passes == keep) out.push_back(item);
  }
  return Value::of(std::move(out));
}

}  // namespace

const Value* Arguments::find(std::size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named)
    if (key == name) return &value;
  return nullptr;
}

List items_of(const Value& value) {
  if (const List* list = value.list()) return *list;
  List out;
  if (const std::string* text = value.string()) {
    for (std::string& character : characters(*text)) out.push_back(Value::of(std::move(character)));
  } else if (const Dict* dict = value.dict(); dict && !dict->is_namespace) {
    for (const auto& [key, member] : dict->members) out.push_back(Value::of(key));
  } else if (!value.is_undefined()) {
    fault(std::string(type_name(value)) + " cannot be looped over");
  }
  return out;
}

Value apply_filter(const std::string& name, const Value& value, const Arguments& arguments) {
  const auto argument = [&](std::size_t i, std::string_view key) { return arguments.find(i, key); };
  if (name == "default" || name == "d") {
    const Value* fallback = argument(0, "default_value");
    const Value* also_false = argument(1, "boolean");
    const bool replaces =
        value.is_undefined() || (also_false && is_true(*also_false) && !is_true(value));
    return !replaces ? value : fallback ? *fallback : Value::of(std::string());
  }
  if (name == "length" || name == "count") return {length_of(value)};
  if (name == "tojson") return to_json(value, arguments);
  if (name == "trim") return Value::of(stripped(text_of(value), argument(0, "chars"), true, true));
  if (name == "upper") return Value::of(mapped(text_of(value), utf8proc_toupper));
  if (name == "lower") return Value::of(mapped(text_of(value), utf8proc_tolower));
  if (name == "title") return Value::of(titled(text_of(value)));
  if (name == "capitalize") return Value::of(capitalized(text_of(value)));
  if (name == "string") return Value::of(text_of(value));
  if (name == "safe") return value;
  if (name == "replace") {
    const Value* from = argument(0, "old");
    const Value* to = argument(1, "new");
    if (!from || !to) fault("replace needs two arguments");
    return Value::of(replaced(text_of(value), string_of(*from, name), string_of(*to, name),
                              integer_argument(argument(2, "count"), -1)));
  }
  if (name == "join") {
    if (argument(1, "attribute")) unsupported("join with an attribute");
    const Value* separator = argument(0, "d");
    return Value::of(joined(items_of(value), separator ? text_of(*separator) : ""));
  }
  if (name == "list") return Value::of(items_of(value));
  if (name == "items" && value.dict()) return Value::of(pairs_of(*value.dict()));
  if (name == "first" || name == "last") {
    const List items = items_of(value);
    if (items.empty()) return Value::undefined("the " + name + " of nothing");
    return name == "first" ? items.front() : items.back();
  }
  if (name == "reverse") {
    List items = items_of(value);
    std::reverse(items.begin(), items.end());
    return value.string() ? Value::of(joined(items, "")) : Value::of(std::move(items));
  }
  if (name == "unique") {
    List out;
    for (const Value& item : items_of(value))
      if (std::none_of(out.begin(), out.end(),
                       [&](const Value& seen) { return are_equal(seen, item); }))
        out.push_back(item);
    return Value::of(std::move(out));
  }
  if (name == "int") {
    std::int64_t integer = integer_argument(argument(0, "default"), 0);
    double number = 0;
    if (const std::string* text = value.string()) {
      const std::string digits = stripped(*text, nullptr, true, true);
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
    for (const Value& item : items_of(value))
      out.push_back(attribute_or_undefined(item, string_of(*attribute, name)));
    return Value::of(std::move(out));
  }
  if (name == "selectattr" || name == "rejectattr")
    return selected(value, arguments, name == "selectattr");
  unsupported("the filter " + name);
}

bool apply_test(const std::string& name, const Value& value, const std::vector<Value>& operands) {
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
    return are_equal(value, operands[0]) == (name != "ne");
  }
  if (name == "in") {
    if (operands.empty()) fault("is in needs an operand");
    const List items = items_of(operands[0]);
    return std::any_of(items.begin(), items.end(),
                       [&](const Value& item) { return are_equal(item, value); });
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

Value call_method(const Value& self, const std::string& name, const Arguments& arguments) {
  const auto argument = [&](std::size_t i, std::string_view key) { return arguments.find(i, key); };
  if (const Dict* dict = self.dict()) {
    if (name == "items") return Value::of(pairs_of(*dict));
    if (name == "keys") return Value::of(items_of(self));
    if (name == "values") {
      List out;
      for (const auto& [key, member] : dict->members) out.push_back(member);
      return Value::of(std::move(out));
    }
    const Value* key = argument(0, "key");
    if (key == nullptr) fault("get needs a key");
    const Value* member = key->string() ? dict->find(*key->string()) : nullptr;
    const Value* fallback = argument(1, "default");
    return member ? *member : fallback ? *fallback : Value::none();
  }
  const std::string& text = string_of(self, name);
  if (name == "strip") return Value::of(stripped(text, argument(0, "chars"), true, true));
  if (name == "lstrip") return Value::of(stripped(text, argument(0, "chars"), true, false));
  if (name == "rstrip") return Value::of(stripped(text, argument(0, "chars"), false, true));
  if (name == "startswith") return {any_affix(text, arguments, true)};
  if (name == "endswith") return {any_affix(text, arguments, false)};
  if (name == "split" || name == "rsplit")
    return Value::of(split(text, argument(0, "sep"), integer_argument(argument(1, "maxsplit"), -1),
                           name == "rsplit"));
  if (name == "join") {
    const Value* items = argument(0, "iterable");
    if (items == nullptr) fault("join needs a list");
    return Value::of(joined(items_of(*items), text));
  }
  if (name == "find" || name == "count") {
    const Value* part = argument(0, "sub");
    if (part == nullptr || arguments.positional.size() != 1) unsupported(name + " with a range");
    const std::string& needle = string_of(*part, name);
    if (name == "find") {
      const std::size_t at = text.find(needle);
      if (at == std::string::npos) return {std::int64_t{-1}};
      return {static_cast<std::int64_t>(characters(text.substr(0, at)).size())};
    }
    if (needle.empty()) unsupported("counting an empty string");
    std::int64_t count = 0;
    for (std::size_t at = text.find(needle); at != std::string::npos;
         at = text.find(needle, at + needle.size()))
      ++count;
    return {count};
  }
  return apply_filter(name, self, arguments);
}

}  // namespace lora::text
