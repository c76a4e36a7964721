// Methods of str, list and dict that templates may call.
#include <algorithm>
#include <array>
#include <map>

#include "text/chat_format.h"
#include "text/chat_functions.h"
#include "text/chat_text.h"

namespace lora::text {
namespace {

[[noreturn]] void fault(std::string what) {
  throw TemplateFault{ErrorKind::incompatible, std::move(what)};
}
[[noreturn]] void unsupported(std::string what) {
  throw TemplateFault{ErrorKind::unsupported, std::move(what)};
}

struct Call {
  const std::string& text;
  const std::string& name;
  const Arguments& arguments;
  RenderBudget& budget;

  const std::string& string(std::size_t i, const char* key) const {
    const Value* value = arguments.find(i, key);
    if (value == nullptr) fault(name + " needs an argument");
    return string_of(*value, name);
  }
  std::int64_t integer(std::size_t i, const char* key, std::int64_t fallback) const {
    return integer_of(arguments.find(i, key), fallback);
  }
  Value made(std::string result) const { return budget.text(std::move(result)); }
};

using Method = Value (*)(const Call&);

Value has_affix(const Call& call, bool at_start) {
  const Value* affix = call.arguments.find(0, "prefix");
  if (affix == nullptr) fault("startswith or endswith got no argument");
  if (call.arguments.positional.size() > 1) unsupported(call.name + " with a range");
  const List one{*affix};
  if (affix->list() && affix->shape != Shape::tuple) fault(call.name + " got list, expected str");
  const List& all = affix->list() ? *affix->list() : one;
  return {std::any_of(all.begin(), all.end(), [&](const Value& item) {
    const std::string& part = string_of(item, call.name);
    return at_start ? call.text.starts_with(part) : call.text.ends_with(part);
  })};
}

Value strip(const Call& call, bool left, bool right) {
  const std::string* set = string_or_none(call.arguments.find(0, "chars"), "strip");
  call.budget.look_through(set ? call.text.size() * (set->size() / 64) : 0);
  return call.made(std::string(stripped(call.text, set, left, right)));
}

Value split_at(const Call& call, bool from_right) {
  return split(call.text, string_or_none(call.arguments.find(0, "sep"), "split"),
               call.integer(1, "maxsplit", -1), from_right, call.budget);
}

Value partition(const Call& call, bool from_right) {
  const std::string& mark = call.string(0, "sep");
  if (mark.empty()) fault(call.name + " got an empty separator");
  const std::string_view text = call.text;
  if (from_right) call.budget.look_through(text.size() * (mark.size() / 64 + 1));
  const std::size_t at = from_right ? text.rfind(mark) : find_part(text, mark);
  const bool has = at != std::string_view::npos;
  const std::string_view before = has ? text.substr(0, at) : from_right ? "" : text;
  const std::string_view after = has ? text.substr(at + mark.size()) : from_right ? text : "";
  RenderBudget& budget = call.budget;
  return budget.list({budget.text(std::string(before)), budget.text(has ? mark : std::string()),
                      budget.text(std::string(after))},
                     Shape::tuple);
}

Value position(const Call& call, bool from_right, bool must_be) {
  if (call.arguments.positional.size() != 1) unsupported(call.name + " with a range");
  const std::string& part = call.string(0, "sub");
  if (from_right) call.budget.look_through(call.text.size() * (part.size() / 64 + 1));
  const std::size_t at = from_right ? call.text.rfind(part) : find_part(call.text, part);
  if (at == std::string::npos) {
    if (must_be) fault("substring not found");
    return {std::int64_t{-1}};
  }
  return {character_count(std::string_view(call.text).substr(0, at))};
}

Value count(const Call& call) {
  if (call.arguments.positional.size() != 1) unsupported("count with a range");
  const std::string& part = call.string(0, "sub");
  if (part.empty()) return {character_count(call.text) + 1};
  std::int64_t found = 0;
  for (std::size_t at = find_part(call.text, part); at != std::string::npos;
       at = find_part(call.text, part, at + part.size()))
    ++found;
  return {found};
}

Value pad(const Call& call, Padding side) {
  const Value* given = call.arguments.find(1, "fillchar");
  const std::string fill = given ? string_of(*given, call.name) : " ";
  if (character_count(fill) != 1) fault(call.name + " got a fill of more than a character");
  if (fill.size() != 1) unsupported(call.name + " with this fill");
  return call.made(padded(call.text, call.integer(0, "width", 0), fill[0], side, call.budget));
}

Value join(const Call& call) {
  const Value* items = call.arguments.find(0, "iterable");
  if (items == nullptr) fault("join needs a list");
  const Value source = listed(*items, call.budget);
  for (const Value& item : *source.list()) string_of(item, "join");
  return call.made(joined(*source.list(), call.text, call.budget));
}

Value replace(const Call& call) {
  return call.made(replaced(call.text, call.string(0, "old"), call.string(1, "new"),
                            call.integer(2, "count", -1), call.budget));
}

Value without(const Call& call, bool at_start) {
  const std::string& part = call.string(0, "prefix");
  const bool has = at_start ? call.text.starts_with(part) : call.text.ends_with(part);
  if (!has) return call.made(call.text);
  return call.made(at_start ? call.text.substr(part.size())
                            : call.text.substr(0, call.text.size() - part.size()));
}

const std::map<std::string_view, Method>& of_strings() {
  using C = const Call&;
  static const std::map<std::string_view, Method> methods{
      {"strip", [](C c) { return strip(c, true, true); }},
      {"lstrip", [](C c) { return strip(c, true, false); }},
      {"rstrip", [](C c) { return strip(c, false, true); }},
      {"startswith", [](C c) { return has_affix(c, true); }},
      {"endswith", [](C c) { return has_affix(c, false); }},
      {"split", [](C c) { return split_at(c, false); }},
      {"rsplit", [](C c) { return split_at(c, true); }},
      {"splitlines",
       [](C c) {
         const Value* keeps = c.arguments.find(0, "keepends");
         return lines_of(c.text, keeps && is_true(*keeps), c.budget);
       }},
      {"partition", [](C c) { return partition(c, false); }},
      {"rpartition", [](C c) { return partition(c, true); }},
      {"find", [](C c) { return position(c, false, false); }},
      {"rfind", [](C c) { return position(c, true, false); }},
      {"index", [](C c) { return position(c, false, true); }},
      {"rindex", [](C c) { return position(c, true, true); }},
      {"count", count},
      {"join", join},
      {"replace", replace},
      {"removeprefix", [](C c) { return without(c, true); }},
      {"removesuffix", [](C c) { return without(c, false); }},
      {"upper", [](C c) { return c.made(mapped(c.text, utf8proc_toupper)); }},
      {"lower", [](C c) { return c.made(mapped(c.text, utf8proc_tolower)); }},
      {"title", [](C c) { return c.made(titled(c.text)); }},
      {"capitalize", [](C c) { return c.made(capitalized(c.text)); }},
      {"isupper", [](C c) { return Value{is_upper(c.text)}; }},
      {"islower", [](C c) { return Value{is_lower(c.text)}; }},
      {"isdigit", [](C c) { return Value{holds_only(c.text, CharacterKind::digit)}; }},
      {"isdecimal", [](C c) { return Value{holds_only(c.text, CharacterKind::digit)}; }},
      {"isnumeric", [](C c) { return Value{holds_only(c.text, CharacterKind::digit)}; }},
      {"isalpha", [](C c) { return Value{holds_only(c.text, CharacterKind::letter)}; }},
      {"isalnum", [](C c) { return Value{holds_only(c.text, CharacterKind::letter_or_digit)}; }},
      {"isspace", [](C c) { return Value{holds_only(c.text, CharacterKind::space)}; }},
      {"ljust", [](C c) { return pad(c, Padding::right); }},
      {"rjust", [](C c) { return pad(c, Padding::left); }},
      {"center", [](C c) { return pad(c, Padding::center); }},
      {"zfill",
       [](C c) {
         return c.made(padded(c.text, c.integer(0, "width", 0), '0', Padding::zeros, c.budget));
       }},
      {"format", [](C c) { return brace_format(c.text, c.arguments, c.budget); }},
  };
  return methods;
}

// Methods that change what they are called on are there, and refused, as in transformers.
constexpr std::array<std::string_view, 11> kOfDicts{"get",        "items",  "keys",    "values",
                                                    "copy",       "clear",  "pop",     "popitem",
                                                    "setdefault", "update", "fromkeys"};
constexpr std::array<std::string_view, 3> kOfLists{"index", "count", "copy"};

template <std::size_t N>
bool is_among(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Value call_of_dict(const Value& self, const std::string& name, const Arguments& arguments,
                   RenderBudget& budget) {
  const Dict& dict = *self.dict();
  if (name == "items") return pairs_of(dict, budget);
  if (name == "keys" || name == "values") {
    List out;
    for (const auto& [key, member] : dict.members)
      out.push_back(name == "keys" ? budget.text(key) : member);
    return budget.list(std::move(out), Shape::view);
  }
  if (name == "copy") return self;
  if (name != "get") unsupported("the method " + name + " of a dictionary");
  const Value* key = arguments.find(0, "key");
  if (key == nullptr) fault("get needs a key");
  budget.search(dict);
  const Value* member = key->string() ? dict.find(*key->string()) : nullptr;
  const Value* fallback = arguments.find(1, "default");
  return member ? *member : fallback ? *fallback : Value::none();
}

Value call_of_list(const Value& self, const std::string& name, const Arguments& arguments,
                   RenderBudget& budget) {
  const List& list = *self.list();
  if (name == "copy") return self;
  const Value* wanted = arguments.find(0, "value");
  if (wanted == nullptr || arguments.positional.size() != 1) unsupported(name + " with a range");
  std::int64_t count = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (!are_equal(list[i], *wanted, budget)) continue;
    if (name == "index") return {static_cast<std::int64_t>(i)};
    ++count;
  }
  if (name == "index") fault("index found no such value");
  return {count};
}

}  // namespace

bool has_method(const Value& self, const std::string& name) {
  if (self.string()) return of_strings().contains(name);
  if (self.list()) return self.shape <= Shape::tuple && is_among(kOfLists, name);
  const Dict* dict = self.dict();
  return dict && !dict->is_namespace && is_among(kOfDicts, name);
}

Value call_method(const Value& self, const std::string& name, const Arguments& arguments,
                  RenderBudget& budget) {
  if (self.dict()) return call_of_dict(self, name, arguments, budget);
  if (self.list()) return call_of_list(self, name, arguments, budget);
  const std::string& text = string_of(self, name);
  budget.look_through(text.size());
  return of_strings().at(name)({text, name, arguments, budget});
}

}  // namespace lora::text
