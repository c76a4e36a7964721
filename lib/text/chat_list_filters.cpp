#include "text/chat_list_filters.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "text/chat_operators.h"
#include "text/chat_text.h"

namespace lora::text {
namespace {

[[noreturn]] void fault(std::string what) {
  throw TemplateFault{ErrorKind::incompatible, std::move(what)};
}

bool is_set(const Arguments& arguments, std::size_t i, const char* name, bool fallback = false) {
  const Value* flag = arguments.find(i, name);
  return flag == nullptr ? fallback : is_true(*flag);
}

// The items of a value by number, as `value[n]`; undefined where there is none.
Value element(const Value& value, std::size_t n) {
  const List* list = value.list();
  if (list == nullptr || value.shape > Shape::tuple || n >= list->size())
    return Value::undefined(std::to_string(n));
  return (*list)[n];
}

// A member of a member of ..., with numbers for places in lists.
Value attribute_of(Value value, const Value& path, RenderBudget& budget) {
  std::int64_t position = 0;
  if (as_integer(path, position) && position >= 0)
    return element(value, static_cast<std::size_t>(position));
  std::string_view rest = string_of(path, "an attribute");
  for (bool is_last = false; !is_last;) {
    const std::size_t end = std::min(rest.find('.'), rest.size());
    const std::string_view part = rest.substr(0, end);
    is_last = end == rest.size();
    rest.remove_prefix(is_last ? end : end + 1);
    budget.step();
    std::size_t n = 0;
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), n);
    if (parsed.ec == std::errc() && parsed.ptr == part.data() + part.size()) {
      value = element(value, n);
      continue;
    }
    if (value.is_undefined()) fault("'" + value.as<Undefined>()->name + "' is undefined");
    if (value.dict()) budget.search(*value.dict());
    const Value* member = value.dict() ? value.dict()->find(part) : nullptr;
    value = member ? Value(*member) : Value::undefined(part);
  }
  return value;
}

// The attribute that an argument names, or the value itself.
Value keyed(const Value& item, const Value* attribute, RenderBudget& budget) {
  if (attribute == nullptr || attribute->as<None>()) return item;
  return attribute_of(item, *attribute, budget);
}

Value folded(const Value& value, bool has_case, RenderBudget& budget) {
  const std::string* text = value.string();
  if (text == nullptr || has_case) return value;
  return budget.text(mapped(*text, utf8proc_tolower));
}

Value generator(List items, RenderBudget& budget) {
  return budget.list(std::move(items), Shape::generator);
}

Value joined_items(const Value& value, const Arguments& arguments, RenderBudget& budget) {
  const Value* separator = arguments.find(0, "d");
  const Value* attribute = arguments.find(1, "attribute");
  const Value source = listed(value, budget);
  List items;
  for (const Value& item : *source.list()) items.push_back(keyed(item, attribute, budget));
  return budget.text(joined(items, separator ? budget.printed(*separator) : std::string(), budget));
}

Value items_of(const Value& value, const Arguments&, RenderBudget& budget) {
  if (value.is_undefined()) return generator({}, budget);
  const Dict* dict = value.dict();
  if (dict == nullptr || dict->is_namespace)
    fault("items got " + std::string(type_name(value)) + ", expected dict");
  return generator(List(*pairs_of(*dict, budget).list()), budget);
}

Value end_of(const Value& value, bool is_first, RenderBudget& budget) {
  const auto* shared = value.as<std::shared_ptr<List>>();
  if (shared != nullptr && value.shape == Shape::generator && is_first && !(*shared)->empty()) {
    Value first = (*shared)->front();
    (*shared)->erase((*shared)->begin());
    return first;
  }
  if (!is_first && (value.shape == Shape::generator))
    fault("last got a generator, which cannot be reversed");
  const Value source = listed(value, budget);
  const List& items = *source.list();
  if (items.empty())
    return Value::undefined(is_first ? "the first of nothing" : "the last of nothing");
  return is_first ? items.front() : items.back();
}

Value reversed_items(const Value& value, const Arguments&, RenderBudget& budget) {
  if (value.string()) return budget.text(reversed(*value.string()));
  const Value source = listed(value, budget);
  budget.require(source.list()->size() * sizeof(Value));
  return generator(List(source.list()->rbegin(), source.list()->rend()), budget);
}

Value unique_items(const Value& value, const Arguments& arguments, RenderBudget& budget) {
  const bool has_case = is_set(arguments, 0, "case_sensitive");
  const Value* attribute = arguments.find(1, "attribute");
  List out;
  List seen;
  const Value source = listed(value, budget);
  for (const Value& item : *source.list()) {
    const Value key = folded(keyed(item, attribute, budget), has_case, budget);
    if (std::any_of(seen.begin(), seen.end(),
                    [&](const Value& other) { return are_equal(other, key, budget); }))
      continue;
    seen.push_back(key);
    out.push_back(item);
  }
  return generator(std::move(out), budget);
}

Value mapped_items(const Value& value, const Arguments& arguments, RenderBudget& budget) {
  const Value source = listed(value, budget);
  List out;
  if (arguments.positional.empty()) {
    const Value* attribute = arguments.find(0, "attribute");
    if (attribute == nullptr) fault("map needs an attribute or a filter");
    const Value* fallback = arguments.find(1, "default");
    for (const Value& item : *source.list()) {
      Value member = attribute_of(item, *attribute, budget);
      out.push_back(member.is_undefined() && fallback ? *fallback : std::move(member));
    }
    return generator(std::move(out), budget);
  }
  Arguments further;
  further.positional.assign(arguments.positional.begin() + 1, arguments.positional.end());
  further.named = arguments.named;
  const std::string& name = string_of(arguments.positional[0], "map");
  for (const Value& item : *source.list()) out.push_back(apply_filter(name, item, further, budget));
  return generator(std::move(out), budget);
}

// select, reject and, with an attribute in front, selectattr and rejectattr.
Value selected(const Value& value, const Arguments& arguments, bool keep, bool has_attribute,
               RenderBudget& budget) {
  const std::size_t first = has_attribute ? 1 : 0;
  if (arguments.positional.size() < first) fault("selectattr needs an attribute");
  const Value* test = arguments.positional.size() > first ? &arguments.positional[first] : nullptr;
  std::vector<Value> operands;
  for (std::size_t i = first + 1; i < arguments.positional.size(); ++i)
    operands.push_back(arguments.positional[i]);
  List out;
  const Value source = listed(value, budget);
  for (const Value& item : *source.list()) {
    const Value subject =
        has_attribute ? attribute_of(item, arguments.positional[0], budget) : item;
    const bool passes =
        test ? apply_test(string_of(*test, "select"), subject, operands, budget) : is_true(subject);
    if (passes == keep) out.push_back(item);
  }
  return generator(std::move(out), budget);
}

bool is_less(const Value& a, const Value& b, RenderBudget& budget) {
  return is_true(apply_binary("<", a, b, budget));
}

// Sorts items by their keys and keeps the order of equal ones, also when it is reversed.
List sorted(std::vector<std::pair<Value, Value>> keyed_items, bool is_reversed,
            RenderBudget& budget) {
  std::stable_sort(keyed_items.begin(), keyed_items.end(), [&](const auto& a, const auto& b) {
    return is_reversed ? is_less(b.first, a.first, budget) : is_less(a.first, b.first, budget);
  });
  List out;
  for (auto& [key, item] : keyed_items) out.push_back(std::move(item));
  return out;
}

Value sorted_items(const Value& value, const Arguments& arguments, RenderBudget& budget) {
  const Value* attribute = arguments.find(2, "attribute");
  const bool has_case = is_set(arguments, 1, "case_sensitive");
  std::vector<std::pair<Value, Value>> items;
  const Value source = listed(value, budget);
  budget.require(source.list()->size() * 4 * sizeof(Value));
  for (const Value& item : *source.list())
    items.emplace_back(folded(keyed(item, attribute, budget), has_case, budget), item);
  return budget.list(sorted(std::move(items), is_set(arguments, 0, "reverse"), budget));
}

Value sorted_members(const Value& value, const Arguments& arguments, RenderBudget& budget) {
  const Dict* dict = value.dict();
  if (dict == nullptr || dict->is_namespace)
    fault("dictsort got " + std::string(type_name(value)) + ", expected dict");
  const Value* by = arguments.find(1, "by");
  const std::string order = by ? string_of(*by, "dictsort") : "key";
  if (order != "key" && order != "value") fault("dictsort by " + order);
  const bool has_case = is_set(arguments, 0, "case_sensitive");
  std::vector<std::pair<Value, Value>> items;
  const Value pairs = pairs_of(*dict, budget);
  for (const Value& pair : *pairs.list())
    items.emplace_back(folded((*pair.list())[order == "key" ? 0 : 1], has_case, budget), pair);
  return budget.list(sorted(std::move(items), is_set(arguments, 2, "reverse"), budget));
}

Value extreme(const Value& value, const Arguments& arguments, bool greatest, RenderBudget& budget) {
  const Value* attribute = arguments.find(1, "attribute");
  const bool has_case = is_set(arguments, 0, "case_sensitive");
  const Value source = listed(value, budget);
  Value best = Value::undefined("the extreme of nothing");
  Value best_key;
  bool is_first = true;
  for (const Value& item : *source.list()) {
    Value key = folded(keyed(item, attribute, budget), has_case, budget);
    const bool wins =
        is_first || (greatest ? is_less(best_key, key, budget) : is_less(key, best_key, budget));
    is_first = false;
    if (!wins) continue;
    best = item;
    best_key = std::move(key);
  }
  return best;
}

Value total(const Value& value, const Arguments& arguments, RenderBudget& budget) {
  const Value* attribute = arguments.find(0, "attribute");
  const Value* start = arguments.find(1, "start");
  Value sum = start ? *start : Value{std::int64_t{0}};
  const Value source = listed(value, budget);
  for (const Value& item : *source.list())
    sum = apply_binary("+", sum, keyed(item, attribute, budget), budget);
  return sum;
}

Value batches(const Value& value, const Arguments& arguments, RenderBudget& budget) {
  const std::int64_t size = integer_of(arguments.find(0, "linecount"), 0);
  if (size < 1) fault("batch got the size " + std::to_string(size));
  const Value* fill = arguments.find(1, "fill_with");
  const Value source = listed(value, budget);
  List out;
  List batch;
  for (const Value& item : *source.list()) {
    if (static_cast<std::int64_t>(batch.size()) == size)
      out.push_back(budget.list(std::exchange(batch, {})));
    batch.push_back(item);
  }
  if (!batch.empty()) {
    const auto missing = static_cast<std::uint64_t>(size) - batch.size();
    if (fill && !fill->as<None>() && missing > 0) {
      budget.require(2 * static_cast<std::uint64_t>(size) * sizeof(Value));
      batch.insert(batch.end(), missing, *fill);
    }
    out.push_back(budget.list(std::move(batch)));
  }
  return generator(std::move(out), budget);
}

const std::map<std::string_view, ListFilter>& table() {
  using A = const Arguments&;
  using B = RenderBudget&;
  using V = const Value&;
  static const std::map<std::string_view, ListFilter> filters{
      {"join", joined_items},
      {"list",
       [](V v, A, B b) {
         const Value source = listed(v, b);
         b.require(source.list()->size() * sizeof(Value));
         return b.list(List(*source.list()));
       }},
      {"items", items_of},
      {"first", [](V v, A, B b) { return end_of(v, true, b); }},
      {"last", [](V v, A, B b) { return end_of(v, false, b); }},
      {"reverse", reversed_items},
      {"unique", unique_items},
      {"map", mapped_items},
      {"select", [](V v, A a, B b) { return selected(v, a, true, false, b); }},
      {"reject", [](V v, A a, B b) { return selected(v, a, false, false, b); }},
      {"selectattr", [](V v, A a, B b) { return selected(v, a, true, true, b); }},
      {"rejectattr", [](V v, A a, B b) { return selected(v, a, false, true, b); }},
      {"sort", sorted_items},
      {"dictsort", sorted_members},
      {"min", [](V v, A a, B b) { return extreme(v, a, false, b); }},
      {"max", [](V v, A a, B b) { return extreme(v, a, true, b); }},
      {"sum", total},
      {"batch", batches},
  };
  return filters;
}

}  // namespace

ListFilter find_list_filter(std::string_view name) {
  const auto filter = table().find(name);
  return filter == table().end() ? nullptr : filter->second;
}

}  // namespace lora::text
