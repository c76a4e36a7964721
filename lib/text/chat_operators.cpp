#include "text/chat_operators.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "text/chat_format.h"
#include "text/chat_functions.h"
#include "text/chat_text.h"

namespace lora::text {
namespace {

[[noreturn]] void fault(ErrorKind kind, std::string what) {
  throw TemplateFault{kind, std::move(what)};
}

std::string described(const Value& value) {
  return value.is_undefined() ? "the undefined '" + value.as<Undefined>()->name + "'"
                              : std::string(type_name(value));
}

Value added(const std::string& left, const std::string& right, RenderBudget& budget) {
  budget.require(left.size() + right.size());
  return budget.text(left + right);
}

Value repeated(const std::string& text, std::int64_t times, RenderBudget& budget) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max() / 2;
  std::string out;
  if (times <= 0 || text.empty()) return budget.text(std::move(out));
  const auto count = static_cast<std::uint64_t>(times);
  budget.require(count > kMost / text.size() ? kMost : 2 * count * text.size());
  budget.look_through(count * text.size());
  for (std::uint64_t i = 0; i < count; ++i) out += text;
  return budget.text(std::move(out));
}

Value repeated_list(const Value& list, std::int64_t times, RenderBudget& budget) {
  constexpr std::int64_t kMost = 100'000;
  const List& items = *list.list();
  if (times > kMost) fault(ErrorKind::unsupported, "a list more than 100000 times");
  List out;
  for (std::int64_t i = 0; i < times; ++i) {
    budget.step(1 + items.size());
    budget.require(2 * (out.size() + items.size()) * sizeof(Value));
    out.insert(out.end(), items.begin(), items.end());
  }
  return budget.list(std::move(out), list.shape);
}

Value arithmetic(const std::string& op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  bool overflows = false;
  if (op == "+") {
    overflows = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflows = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflows = __builtin_mul_overflow(a, b, &result);
  } else {
    if (b == 0) fault(ErrorKind::incompatible, "division by zero");
    if (b == -1) return op == "//" ? arithmetic("-", 0, a) : Value{std::int64_t{0}};
    // Python rounds towards minus infinity.
    const bool adjusts = a % b != 0 && (a < 0) != (b < 0);
    result = op == "//" ? a / b - (adjusts ? 1 : 0) : a % b + (adjusts ? b : 0);
  }
  if (overflows) fault(ErrorKind::unsupported, "a number beyond 64 bits");
  return {result};
}

// Of whole numbers as long as the result is one.
Value power(std::int64_t base, std::int64_t exponent) {
  if (exponent < 0) return {std::pow(static_cast<double>(base), static_cast<double>(exponent))};
  if (base == 0 || base == 1) return {exponent == 0 ? 1 : base};
  if (base == -1) return {std::int64_t{exponent % 2 == 0 ? 1 : -1}};
  std::int64_t result = 1;
  for (std::int64_t i = 0; i < exponent; ++i)
    result = *arithmetic("*", result, base).as<std::int64_t>();
  return {result};
}

bool ordered(const std::string& op, const Value& left, const Value& right, RenderBudget& budget) {
  double x = 0;
  double y = 0;
  int order = 0;
  if (left.string() && right.string()) {
    budget.look_through(std::min(left.string()->size(), right.string()->size()));
    order = left.string()->compare(*right.string());
  } else if (as_number(left, x) && as_number(right, y)) {
    order = x < y ? -1 : x > y ? 1 : 0;
  } else if (left.list() && right.list() && left.shape == right.shape &&
             left.shape <= Shape::tuple) {
    const List& a = *left.list();
    const List& b = *right.list();
    std::size_t i = 0;
    while (i < std::min(a.size(), b.size()) && are_equal(a[i], b[i], budget)) ++i;
    if (i < std::min(a.size(), b.size())) return ordered(op, a[i], b[i], budget);
    order = a.size() < b.size() ? -1 : a.size() > b.size() ? 1 : 0;
  } else {
    fault(ErrorKind::incompatible,
          "cannot compare " + described(left) + " and " + described(right) + " with " + op);
  }
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  return op == ">" ? order > 0 : order >= 0;
}

bool is_in(const Value& left, const Value& right, RenderBudget& budget) {
  if (const std::string* text = right.string()) {
    if (left.string() == nullptr)
      fault(ErrorKind::incompatible, "'in' of a str got " + described(left) + ", expected str");
    budget.look_through(text->size() + left.string()->size());
    return find_part(*text, *left.string()) != std::string::npos;
  }
  const Value source = listed(right, budget);
  return std::any_of(source.list()->begin(), source.list()->end(),
                     [&](const Value& item) { return are_equal(item, left, budget); });
}

}  // namespace

Value apply_unary(const std::string& op, const Value& value) {
  if (op == "not") return {!is_true(value)};
  std::int64_t integer = 0;
  double number = 0;
  if (as_integer(value, integer)) {
    if (op == "+") return {integer};
    return arithmetic("-", 0, integer);
  }
  if (as_number(value, number)) return {op == "-" ? -number : number};
  fault(ErrorKind::incompatible, "unary " + op + " got " + std::string(type_name(value)));
}

Value apply_binary(const std::string& op, const Value& left, const Value& right,
                   RenderBudget& budget) {
  if (op == "==") return {are_equal(left, right, budget)};
  if (op == "!=") return {!are_equal(left, right, budget)};
  if (op == "in") return {is_in(left, right, budget)};
  if (op == "not in") return {!is_in(left, right, budget)};
  if (op == "~") return added(budget.printed(left), budget.printed(right), budget);
  if (op == "<" || op == "<=" || op == ">" || op == ">=") return {ordered(op, left, right, budget)};
  if (op == "+" && left.string() && right.string())
    return added(*left.string(), *right.string(), budget);
  if (op == "+" && left.list() && right.list() && left.shape == right.shape &&
      left.shape <= Shape::tuple) {
    budget.require((left.list()->size() + right.list()->size()) * 2 * sizeof(Value));
    List both = *left.list();
    both.insert(both.end(), right.list()->begin(), right.list()->end());
    return budget.list(std::move(both), left.shape);
  }
  if (op == "%" && left.string()) {
    const bool is_tuple = right.list() && right.shape == Shape::tuple;
    if (right.dict()) fault(ErrorKind::unsupported, "'%' of a text and a dict");
    return printf_format(*left.string(), is_tuple ? *right.list() : List{right}, budget);
  }
  std::int64_t a = 0;
  std::int64_t b = 0;
  if (as_integer(left, a) && as_integer(right, b) && op != "/")
    return op == "**" ? power(a, b) : arithmetic(op, a, b);
  double x = 0;
  double y = 0;
  if (as_number(left, x) && as_number(right, y)) {
    if (op == "+") return {x + y};
    if (op == "-") return {x - y};
    if (op == "*") return {x * y};
    if (op == "**") return {std::pow(x, y)};
    if (y == 0) fault(ErrorKind::incompatible, "division by zero");
    if (op == "/") return {x / y};
    if (op == "//") return {std::floor(x / y)};
    return {x - std::floor(x / y) * y};
  }
  if (op == "*" && left.string() && as_integer(right, b))
    return repeated(*left.string(), b, budget);
  if (op == "*" && right.string() && as_integer(left, a))
    return repeated(*right.string(), a, budget);
  if (op == "*" && left.list() && left.shape <= Shape::tuple && as_integer(right, b))
    return repeated_list(left, b, budget);
  fault(ErrorKind::incompatible,
        "cannot apply " + op + " to " + described(left) + " and " + described(right));
}

}  // namespace lora::text
