// The filters of the template language that look at one value.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>

#include "text/chat_format.h"
#include "text/chat_functions.h"
#include "text/chat_list_filters.h"
#include "text/chat_operators.h"
#include "text/chat_text.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

[[noreturn]] void fault(std::string what) {
  throw TemplateFault{ErrorKind::incompatible, std::move(what)};
}

std::string text_of_argument(const Value* value, const std::string& user, std::string fallback) {
  return value == nullptr ? fallback : string_of(*value, user);
}

Value or_default(const Value& value, const Arguments& arguments, RenderBudget& budget) {
  const Value* fallback = arguments.find(0, "default_value");
  const Value* also_false = arguments.find(1, "boolean");
  const bool replaces =
      value.is_undefined() || (also_false && is_true(*also_false) && !is_true(value));
  return !replaces ? value : fallback ? *fallback : budget.text({});
}

std::int64_t length_of(const Value& value, RenderBudget& budget) {
  if (const std::string* text = value.string()) {
    budget.look_through(text->size());
    return character_count(*text);
  }
  if (const List* list = value.list(); list && value.shape != Shape::generator)
    return static_cast<std::int64_t>(list->size());
  if (const Dict* dict = value.dict(); dict && !dict->is_namespace)
    return static_cast<std::int64_t>(dict->members.size());
  if (value.is_undefined()) return 0;
  fault(std::string(type_name(value)) + " has no length");
}

Value to_json(const Value& value, const Arguments& arguments, RenderBudget& budget) {
  constexpr std::int64_t kMostIndent = 16;
  JsonStyle style{-1, false, false, true};
  const auto is_set = [&](std::size_t i, const char* name) {
    const Value* flag = arguments.find(i, name);
    return flag != nullptr && is_true(*flag);
  };
  style.ascii_only = is_set(0, "ensure_ascii");
  style.sort_keys = is_set(3, "sort_keys");
  if (const Value* indent = arguments.find(1, "indent")) {
    const std::int64_t spaces = integer_of(indent, -1);
    if (spaces > kMostIndent)
      throw TemplateFault{ErrorKind::unsupported, "tojson with an indent of more than 16"};
    // Below 0 Python breaks lines all the same.
    if (!indent->as<None>()) style.indent = static_cast<int>(std::max<std::int64_t>(spaces, 0));
  }
  if (const Value* separators = arguments.find(2, "separators");
      separators && !separators->as<None>()) {
    const Value compact = budget.list({budget.text(","), budget.text(":")}, separators->shape);
    const Value usual = budget.list({budget.text(", "), budget.text(": ")}, separators->shape);
    style.space_after = are_equal(*separators, usual, budget);
    if (style.indent >= 0 || (!style.space_after && !are_equal(*separators, compact, budget)))
      throw TemplateFault{ErrorKind::unsupported, "tojson with these separators"};
  }
  // A control character takes six bytes; each value a line that is indented, and a node of a tree.
  const std::uint64_t bytes = budget.written_size(value);
  budget.require(8 * bytes + bytes / 32 * static_cast<std::uint64_t>(style.indent + 1) *
                                 static_cast<std::uint64_t>(value.depth + 1));
  return budget.text(dump_json(json_of(value), style));
}

Value trimmed(const Value& value, const Arguments& arguments, RenderBudget& budget) {
  const std::string text = budget.printed(value);
  const std::string* set = string_or_none(arguments.find(0, "chars"), "strip");
  budget.look_through(set ? text.size() * std::max<std::size_t>(1, set->size() / 64) : 0);
  return budget.text(std::string(stripped(text, set, true, true)));
}

Value replacement(const Value& value, const Arguments& arguments, RenderBudget& budget) {
  const Value* from = arguments.find(0, "old");
  const Value* to = arguments.find(1, "new");
  if (!from || !to) fault("replace needs two arguments");
  return budget.text(replaced(budget.printed(value), budget.printed(*from), budget.printed(*to),
                              integer_of(arguments.find(2, "count"), -1), budget));
}

Value as_int(const Value& value, const Arguments& arguments) {
  std::int64_t integer = integer_of(arguments.find(0, "default"), 0);
  const std::int64_t base = integer_of(arguments.find(1, "base"), 10);
  double number = 0;
  if (const std::string* text = value.string()) {
    std::string_view digits = stripped(*text, nullptr, true, true);
    if (base != 10) throw TemplateFault{ErrorKind::unsupported, "int with another base"};
    if (digits.starts_with('+')) digits.remove_prefix(1);
    std::int64_t parsed = 0;
    const char* end = digits.data() + digits.size();
    const auto [at, error] = std::from_chars(digits.data(), end, parsed);
    if (error == std::errc() && at == end) return {parsed};
    if (const auto real = number_in(digits); real && std::fabs(*real) < 9e18)
      integer = static_cast<std::int64_t>(*real);
  } else if (as_number(value, number) && number > -9e18 && number < 9e18) {
    if (as_integer(value, integer)) return {integer};
    integer = static_cast<std::int64_t>(number);
  }
  return {integer};
}

Value as_float(const Value& value, const Arguments& arguments) {
  double number = 0;
  if (as_number(value, number)) return {number};
  if (const std::string* text = value.string())
    if (const auto real = number_in(stripped(*text, nullptr, true, true))) return {*real};
  const Value* fallback = arguments.find(0, "default");
  return fallback ? *fallback : Value{0.0};
}

Value rounded(const Value& value, const Arguments& arguments) {
  double number = 0;
  std::int64_t integer = 0;
  if (!as_number(value, number)) fault("round got " + std::string(type_name(value)));
  const std::int64_t digits = integer_of(arguments.find(0, "precision"), 0);
  const std::string method = text_of_argument(arguments.find(1, "method"), "round", "common");
  if (digits < 0 || digits > 15)
    throw TemplateFault{ErrorKind::unsupported, "round to this precision"};
  if (method == "common" && as_integer(value, integer)) return {integer};
  const double scale = std::pow(10.0, static_cast<double>(digits));
  if (method == "ceil") return {std::ceil(number * scale) / scale};
  if (method == "floor") return {std::floor(number * scale) / scale};
  if (method != "common") fault("round got the method " + method);
  // Python rounds the decimal that is printed exactly, half to even.
  std::array<char, 400> buffer;
  std::snprintf(buffer.data(), buffer.size(), "%.*f", static_cast<int>(digits), number);
  double nearest = 0;
  std::from_chars(buffer.data(), buffer.data() + std::char_traits<char>::length(buffer.data()),
                  nearest);
  return {nearest};
}

Value absolute(const Value& value) {
  std::int64_t integer = 0;
  double number = 0;
  if (as_integer(value, integer)) return integer < 0 ? apply_unary("-", value) : Value{integer};
  if (as_number(value, number)) return {std::fabs(number)};
  fault("abs got " + std::string(type_name(value)));
}

Value indented(const Value& value, const Arguments& arguments, RenderBudget& budget) {
  constexpr std::int64_t kMost = 1000;
  const Value* width = arguments.find(0, "width");
  const auto is_set = [&](std::size_t i, const char* name) {
    const Value* flag = arguments.find(i, name);
    return flag != nullptr && is_true(*flag);
  };
  const std::int64_t spaces = width && width->string() ? 0 : integer_of(width, 4);
  if (spaces > kMost) throw TemplateFault{ErrorKind::unsupported, "an indent beyond 1000"};
  const std::string indent =
      width && width->string()
          ? *width->string()
          : std::string(static_cast<std::size_t>(std::max<std::int64_t>(spaces, 0)), ' ');
  return budget.text(indented_lines(string_of(value, "indent"), indent, is_set(1, "first"),
                                    is_set(2, "blank"), budget));
}

Value word_count(const Value& value, RenderBudget& budget) {
  const std::string text = budget.printed(value);
  const Value words = split(text, nullptr, -1, false, budget);
  return {static_cast<std::int64_t>(words.list()->size())};
}

using Filter = Value (*)(const Value&, const Arguments&, RenderBudget&);

const std::map<std::string_view, Filter>& table() {
  using A = const Arguments&;
  using B = RenderBudget&;
  using V = const Value&;
  static const std::map<std::string_view, Filter> filters{
      {"default", or_default},
      {"d", or_default},
      {"length", [](V v, A, B b) { return Value{length_of(v, b)}; }},
      {"count", [](V v, A, B b) { return Value{length_of(v, b)}; }},
      {"tojson", to_json},
      {"trim", trimmed},
      {"upper", [](V v, A, B b) { return b.text(mapped(b.printed(v), utf8proc_toupper)); }},
      {"lower", [](V v, A, B b) { return b.text(mapped(b.printed(v), utf8proc_tolower)); }},
      {"title", [](V v, A, B b) { return b.text(titled_words(b.printed(v))); }},
      {"capitalize", [](V v, A, B b) { return b.text(capitalized(b.printed(v))); }},
      {"string", [](V v, A, B b) { return v.string() ? v : b.text(b.printed(v)); }},
      {"safe", [](V v, A, B b) { return v.string() ? v : b.text(b.printed(v)); }},
      {"replace", replacement},
      {"int", [](V v, A a, B) { return as_int(v, a); }},
      {"float", [](V v, A a, B) { return as_float(v, a); }},
      {"round", [](V v, A a, B) { return rounded(v, a); }},
      {"abs", [](V v, A, B) { return absolute(v); }},
      {"indent", indented},
      {"wordcount", [](V v, A, B b) { return word_count(v, b); }},
      {"format",
       [](V v, A a, B b) { return printf_format(string_of(v, "format"), a.positional, b); }},
      {"center",
       [](V v, A a, B b) {
         return b.text(
             padded(b.printed(v), integer_of(a.find(0, "width"), 80), ' ', Padding::center, b));
       }},
  };
  return filters;
}

}  // namespace

bool has_filter(std::string_view name) {
  return table().contains(name) || find_list_filter(name) != nullptr;
}

Value apply_filter(const std::string& name, const Value& value, const Arguments& arguments,
                   RenderBudget& budget) {
  if (const auto filter = table().find(name); filter != table().end())
    return filter->second(value, arguments, budget);
  if (const ListFilter filter = find_list_filter(name)) return filter(value, arguments, budget);
  throw TemplateFault{ErrorKind::unsupported, "the filter " + name};
}

}  // namespace lora::text
