// What the expressions of the template language are worth.
#include <algorithm>
#include <array>

#include "text/chat_machine.h"
#include "text/chat_operators.h"

namespace lora::text {
namespace {

using EKind = Expression::Kind;

}  // namespace

Value Interpreter::evaluate(const Expression& expression) {
  const Nesting nesting(*this);
  budget_.step();
  const auto item = [&](std::size_t i) { return evaluate(expression.items[i]); };
  switch (expression.kind) {
    case EKind::literal:
      return expression.literal;
    case EKind::name:
      return name(expression.text);
    case EKind::list:
    case EKind::tuple: {
      List list;
      for (const Expression& part : expression.items) list.push_back(evaluate(part));
      return budget_.list(std::move(list),
                          expression.kind == EKind::list ? Shape::list : Shape::tuple);
    }
    case EKind::dict: {
      Dict dict;
      for (std::size_t i = 0; i < expression.items.size(); i += 2) {
        const Value key = item(i);
        if (key.string() == nullptr)
          fail(ErrorKind::unsupported,
               "a dictionary whose key is " + std::string(type_name(key)) + " is not supported");
        define(dict, *key.string(), item(i + 1));
      }
      return budget_.dict(std::move(dict));
    }
    case EKind::unpacked:
      return item(0);
    case EKind::chain: {
      Value left = item(0);
      for (std::size_t i = 0; i < expression.keywords.size(); ++i) {
        Value right = item(i + 1);
        if (!is_true(apply_binary(expression.keywords[i], left, right, budget_))) return {false};
        left = std::move(right);
      }
      return {true};
    }
    case EKind::attribute:
      return attribute(item(0), expression.text);
    case EKind::index:
      return index(item(0), item(1));
    case EKind::slice:
      return slice(item(0), item(1), item(2), item(3));
    case EKind::call:
      return call(expression);
    case EKind::filter: {
      const Value value = item(0);
      const Arguments arguments = arguments_of(expression);
      line_ = expression.line;
      return apply_filter(expression.text, value, arguments, budget_);
    }
    case EKind::test: {
      const Value value = item(0);
      const Arguments arguments = arguments_of(expression);
      return {apply_test(expression.text, value, arguments.positional, budget_)};
    }
    case EKind::choice:
      return is_true(item(1)) ? item(0) : item(2);
    case EKind::unary:
      return apply_unary(expression.text, item(0));
    case EKind::binary:
      // The value of `and` and `or` is one of the operands, as in Python.
      if (expression.text == "and") {
        Value left = item(0);
        return is_true(left) ? item(1) : left;
      }
      if (expression.text == "or") {
        Value left = item(0);
        return is_true(left) ? left : item(1);
      }
      return apply_binary(expression.text, item(0), item(1), budget_);
  }
  return Value::none();
}

Value Interpreter::name(const std::string& text) {
  if (const Value* value = look_up(text)) return *value;
  constexpr std::array<std::string_view, 8> kBuiltins{
      "raise_exception", "namespace", "range", "dict", "cycler", "joiner", "lipsum", "self"};
  if (std::find(kBuiltins.begin(), kBuiltins.end(), text) != kBuiltins.end() ||
      (text == "strftime_now" && now_ != nullptr))
    return {Bound{nullptr, text}};
  return Value::undefined(text);
}

Value Interpreter::attribute(const Value& value, const std::string& key) {
  if (value.is_undefined())
    fail(ErrorKind::incompatible, "'" + value.as<Undefined>()->name + "' is undefined");
  // Jinja looks for a method first, for a member second: {"items": 1}.items is the method.
  if (has_method(value, key)) return {Bound{std::make_shared<Value>(value), key}, value.depth + 1};
  if (const Value* member = member_of(value, key)) return *member;
  if (value.as<Macro>() || value.as<Bound>())
    fail(ErrorKind::unsupported, "the attribute " + key + " of a function is not supported");
  if (value.list() && !key.empty() && key.find_first_not_of("0123456789") == std::string::npos)
    return index(value, {static_cast<std::int64_t>(std::stoll(key.substr(0, 9)))});
  return Value::undefined(key);
}

Value Interpreter::index(const Value& value, const Value& key) {
  if (value.is_undefined())
    fail(ErrorKind::incompatible, "'" + value.as<Undefined>()->name + "' is undefined");
  if (const std::string* text = key.string()) {
    const Value* member = member_of(value, *text);
    return member ? *member : Value::undefined(*text);
  }
  std::int64_t position = 0;
  if (!as_integer(key, position) || (!value.list() && !value.string()) ||
      value.shape > Shape::range)
    return Value::undefined("element " + budget_.printed(key));
  const Value source = listed(value, budget_);
  const List& items = *source.list();
  const auto count = static_cast<std::int64_t>(items.size());
  if (position < 0) position += count;
  if (position < 0 || position >= count)
    return Value::undefined("element " + std::to_string(position));
  return items[static_cast<std::size_t>(position)];
}

Value Interpreter::slice(const Value& value, const Value& first, const Value& last,
                         const Value& stride) {
  if ((!value.list() && !value.string()) || value.shape > Shape::range)
    fail(ErrorKind::incompatible, std::string(type_name(value)) + " cannot be sliced");
  const Value source = listed(value, budget_);
  const List& items = *source.list();
  const auto count = static_cast<std::int64_t>(items.size());
  const std::int64_t step = bound(stride, 1);
  if (step == 0) fail(ErrorKind::incompatible, "a slice has step 0");
  const auto clamped = [&](const Value& end, std::int64_t fallback) {
    if (end.as<None>()) return fallback;
    std::int64_t position = bound(end, 0);
    if (position < 0) position = std::max<std::int64_t>(position, -count - 1) + count;
    return step > 0 ? std::clamp<std::int64_t>(position, 0, count)
                    : std::clamp<std::int64_t>(position, -1, count - 1);
  };
  const std::int64_t begin = clamped(first, step > 0 ? 0 : count - 1);
  const std::int64_t end = clamped(last, step > 0 ? count : -1);
  List out;
  budget_.require(2 * items.size() * sizeof(Value));
  for (std::int64_t i = begin; step > 0 ? i < end : i > end; i += step)
    out.push_back(items[static_cast<std::size_t>(i)]);
  if (!value.string()) return budget_.list(std::move(out), value.shape);
  std::string text;
  for (const Value& character : out) text += *character.string();
  return budget_.text(std::move(text));
}

std::int64_t Interpreter::bound(const Value& value, std::int64_t fallback) {
  if (value.as<None>()) return fallback;
  std::int64_t out = 0;
  if (!as_integer(value, out))
    fail(ErrorKind::incompatible,
         "a slice has the bound " + std::string(type_name(value)) + ", expected int");
  return std::clamp<std::int64_t>(out, -(std::int64_t{1} << 40), std::int64_t{1} << 40);
}

}  // namespace lora::text
