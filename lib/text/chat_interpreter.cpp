#include "text/chat_interpreter.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "lora/base/error.h"
#include "text/chat_budget.h"
#include "text/chat_functions.h"
#include "text/chat_operators.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

using EKind = Expression::Kind;
using SKind = Statement::Kind;

constexpr int kMaxCalls = 50;
constexpr int kMaxNesting = 1000;
constexpr std::size_t kLongestReason = 1000;
constexpr std::int64_t kMaxRange = 100'000;

enum class Flow { on, leave, next };

std::uint64_t size_of_all(const Dict& variables) {
  std::uint64_t bytes = 0;
  for (const auto& [name, value] : variables.members) bytes += name.size() + size_of(value);
  return bytes;
}

class Interpreter {
 public:
  Interpreter(Dict variables, const std::string& context)
      : context_(context), budget_(size_of_all(variables)) {
    scopes_.push_back(std::move(variables));
  }

  RenderedChat run(const std::vector<Statement>& program) {
    checked([&] { return execute(program); });
    return {std::move(output_), std::move(generated_)};
  }

 private:
  Flow execute(const std::vector<Statement>& statements) {
    for (const Statement& statement : statements) {
      line_ = statement.line;
      budget_.step();
      if (const Flow flow = execute(statement); flow != Flow::on) return flow;
    }
    return Flow::on;
  }

  Flow execute(const Statement& statement) {
    switch (statement.kind) {
      case SKind::text:
        write(statement.text);
        break;
      case SKind::print:
        print(evaluate(statement.expressions[0]));
        break;
      case SKind::branch:
        return execute(is_true(evaluate(statement.expressions[0])) ? statement.body
                                                                   : statement.other);
      case SKind::loop:
        loop(statement);
        break;
      case SKind::set:
        assign(statement);
        break;
      case SKind::set_block: {
        // First, since the body may open scopes and move those that are here.
        const Value text = captured(statement.body);
        define(scopes_.back(), statement.names[0], text);
        break;
      }
      case SKind::macro:
        define(scopes_.back(), statement.names[0], {Macro{&statement}});
        break;
      case SKind::generation: {
        const std::size_t begin = output_.size();
        const Flow flow = execute(statement.body);
        // Inside a macro or a set block positions are not yet those of the text.
        if (captures_ == 0) generated_.push_back({begin, output_.size()});
        return flow;
      }
      case SKind::leave:
        return Flow::leave;
      case SKind::next:
        return Flow::next;
    }
    return Flow::on;
  }

  void assign(const Statement& statement) {
    const Value value = evaluate(statement.expressions[0]);
    if (!statement.text.empty()) {
      const Value* target = look_up(statement.names[0]);
      const auto* shared = target ? target->as<std::shared_ptr<Dict>>() : nullptr;
      if (shared == nullptr || !(*shared)->is_namespace)
        fail(ErrorKind::incompatible, "'" + statement.names[0] + "' is not a namespace");
      budget_.require_storable(value);
      define(**shared, statement.text, value);
    } else {
      bind(scopes_.back(), statement.names, value);
    }
  }

  void define(Dict& scope, const std::string& name, const Value& value) {
    budget_.search(scope);
    scope.set(name, value);
  }

  void bind(Dict& scope, const std::vector<std::string>& names, const Value& value) {
    if (names.size() == 1) {
      define(scope, names[0], value);
      return;
    }
    const Value source = listed(value, budget_);
    const List& items = *source.list();
    if (items.size() != names.size())
      fail(ErrorKind::incompatible, "found " + std::to_string(items.size()) +
                                        " values to unpack, expected " +
                                        std::to_string(names.size()));
    for (std::size_t i = 0; i < names.size(); ++i) define(scope, names[i], items[i]);
  }

  void loop(const Statement& statement) {
    Value source = listed(evaluate(statement.expressions[0]), budget_);
    if (statement.expressions.size() > 1) {
      List kept;
      for (const Value& item : *source.list()) {
        scopes_.emplace_back();
        bind(scopes_.back(), statement.names, item);
        if (is_true(evaluate(statement.expressions[1]))) kept.push_back(item);
        scopes_.pop_back();
      }
      source = budget_.list(std::move(kept));
    }
    const List& items = *source.list();
    for (std::size_t i = 0; i < items.size(); ++i) {
      budget_.step();
      scopes_.emplace_back();
      bind(scopes_.back(), statement.names, items[i]);
      define(scopes_.back(), "loop", loop_state(items, i));
      const Flow flow = execute(statement.body);
      scopes_.pop_back();
      if (flow == Flow::leave) break;
    }
    if (items.empty()) execute(statement.other);
  }

  Value loop_state(const List& items, std::size_t i) {
    const auto count = static_cast<std::int64_t>(items.size());
    const auto index = static_cast<std::int64_t>(i);
    Dict loop;
    loop.set("index0", {index});
    loop.set("index", {index + 1});
    loop.set("revindex0", {count - 1 - index});
    loop.set("revindex", {count - index});
    loop.set("first", {i == 0});
    loop.set("last", {index + 1 == count});
    loop.set("length", {count});
    if (i > 0) loop.set("previtem", items[i - 1]);
    if (index + 1 < count) loop.set("nextitem", items[i + 1]);
    return budget_.dict(std::move(loop));
  }

  Value captured(const std::vector<Statement>& body) {
    std::string outer = std::exchange(output_, {});
    ++captures_;
    execute(body);
    --captures_;
    budget_.give_back(2 * output_.size());
    return budget_.text(std::exchange(output_, std::move(outer)));
  }

  const Value* look_up(std::string_view name) {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      budget_.search(*scope);
      if (const Value* value = scope->find(name)) return value;
    }
    return nullptr;
  }

  const Value* member_of(const Value& value, std::string_view key) {
    if (value.dict() == nullptr) return nullptr;
    budget_.search(*value.dict());
    return value.dict()->find(key);
  }

  // Every level is some frames of the stack, whether of the template or of a macro that it calls.
  struct Nesting {
    explicit Nesting(Interpreter& interpreter) : nesting(interpreter.nesting_) {
      if (++nesting > kMaxNesting)
        interpreter.fail(ErrorKind::resources, "more than 1000 levels of nesting");
    }
    ~Nesting() { --nesting; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;
    int& nesting;
  };

  Value evaluate(const Expression& expression) {
    const Nesting nesting(*this);
    budget_.step();
    const auto item = [&](std::size_t i) { return evaluate(expression.items[i]); };
    switch (expression.kind) {
      case EKind::literal:
        return expression.literal;
      case EKind::name:
        return name(expression.text);
      case EKind::list: {
        List list;
        for (const Expression& part : expression.items) list.push_back(evaluate(part));
        return budget_.list(std::move(list));
      }
      case EKind::dict: {
        Dict dict;
        for (std::size_t i = 0; i < expression.items.size(); i += 2)
          define(dict, budget_.printed(item(i)), item(i + 1));
        return budget_.dict(std::move(dict));
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

  Value name(const std::string& text) {
    if (const Value* value = look_up(text)) return *value;
    if (text == "raise_exception" || text == "namespace" || text == "range" || text == "dict")
      return {Bound{nullptr, text}};
    return Value::undefined(text);
  }

  Value attribute(const Value& value, const std::string& key) {
    if (value.is_undefined())
      fail(ErrorKind::incompatible, "'" + value.as<Undefined>()->name + "' is undefined");
    // Jinja looks for a method first, for a member second: {"items": 1}.items is the method.
    if (has_method(value, key))
      return {Bound{std::make_shared<Value>(value), key}, value.depth + 1};
    if (const Value* member = member_of(value, key)) return *member;
    if (value.list() && !key.empty() && key.find_first_not_of("0123456789") == std::string::npos)
      return index(value, {static_cast<std::int64_t>(std::stoll(key.substr(0, 9)))});
    return Value::undefined(key);
  }

  Value index(const Value& value, const Value& key) {
    if (value.is_undefined())
      fail(ErrorKind::incompatible, "'" + value.as<Undefined>()->name + "' is undefined");
    if (const std::string* text = key.string()) {
      const Value* member = member_of(value, *text);
      return member ? *member : Value::undefined(*text);
    }
    std::int64_t position = 0;
    if (!as_integer(key, position) || (!value.list() && !value.string()))
      return Value::undefined("element " + budget_.printed(key));
    const Value source = listed(value, budget_);
    const List& items = *source.list();
    const auto count = static_cast<std::int64_t>(items.size());
    if (position < 0) position += count;
    if (position < 0 || position >= count)
      return Value::undefined("element " + std::to_string(position));
    return items[static_cast<std::size_t>(position)];
  }

  // Python's slice.indices() for a positive or negative step.
  Value slice(const Value& value, const Value& first, const Value& last, const Value& stride) {
    if (!value.list() && !value.string())
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
    if (!value.string()) return budget_.list(std::move(out));
    std::string text;
    for (const Value& character : out) text += *character.string();
    return budget_.text(std::move(text));
  }

  std::int64_t bound(const Value& value, std::int64_t fallback) {
    if (value.as<None>()) return fallback;
    std::int64_t out = 0;
    if (!as_integer(value, out))
      fail(ErrorKind::incompatible,
           "a slice has the bound " + std::string(type_name(value)) + ", expected int");
    return std::clamp<std::int64_t>(out, -(std::int64_t{1} << 40), std::int64_t{1} << 40);
  }

  Arguments arguments_of(const Expression& expression) {
    Arguments out;
    for (std::size_t i = 1; i < expression.items.size(); ++i)
      out.positional.push_back(evaluate(expression.items[i]));
    for (std::size_t i = 0; i < expression.keywords.size(); ++i)
      out.named.emplace_back(expression.keywords[i], evaluate(expression.values[i]));
    return out;
  }

  Value call(const Expression& expression) {
    const Value callee = evaluate(expression.items[0]);
    const Arguments arguments = arguments_of(expression);
    line_ = expression.line;
    if (const auto* macro = callee.as<Macro>()) return call_macro(*macro->definition, arguments);
    const auto* bound = callee.as<Bound>();
    if (bound == nullptr) {
      const Expression& target = expression.items[0];
      fail(ErrorKind::unsupported, "the function or method " +
                                       (target.text.empty() ? "of this expression" : target.text) +
                                       " is not supported");
    }
    if (bound->self) return call_method(*bound->self, bound->name, arguments, budget_);
    return call_builtin(bound->name, arguments);
  }

  Value call_builtin(const std::string& function, const Arguments& arguments) {
    if (function == "raise_exception") {
      const Value* message = arguments.find(0, "message");
      fail(ErrorKind::incompatible,
           "the template refuses these messages: " +
               (message ? budget_.printed(*message).substr(0, kLongestReason) : "no reason"));
    }
    if (function == "range") return range(arguments);
    Dict dict;
    dict.is_namespace = function == "namespace";
    for (const auto& [key, value] : arguments.named) define(dict, key, value);
    if (!arguments.positional.empty())
      fail(ErrorKind::unsupported, function + " with positional arguments is not supported");
    return budget_.dict(std::move(dict));
  }

  Value range(const Arguments& arguments) {
    std::vector<std::int64_t> bounds;
    for (const Value& value : arguments.positional) bounds.push_back(this->bound(value, 0));
    if (bounds.empty() || bounds.size() > 3)
      fail(ErrorKind::incompatible, "range got " + std::to_string(bounds.size()) + " arguments");
    const std::int64_t begin = bounds.size() > 1 ? bounds[0] : 0;
    const std::int64_t end = bounds.size() > 1 ? bounds[1] : bounds[0];
    const std::int64_t step = bounds.size() > 2 ? bounds[2] : 1;
    if (step == 0) fail(ErrorKind::incompatible, "range has step 0");
    List out;
    for (std::int64_t i = begin; step > 0 ? i < end : i > end; i += step) {
      if (static_cast<std::int64_t>(out.size()) == kMaxRange)
        fail(ErrorKind::unsupported, "a range of more than 100000 numbers is not supported");
      out.push_back({i});
    }
    return budget_.list(std::move(out));
  }

  Value call_macro(const Statement& macro, const Arguments& arguments) {
    if (++calls_ > kMaxCalls) fail(ErrorKind::unsupported, "more than 50 nested calls of macros");
    Dict scope;
    for (std::size_t i = 1; i < macro.names.size(); ++i) {
      const Value* given = arguments.find(i - 1, macro.names[i]);
      define(scope, macro.names[i], given ? *given : evaluate(macro.expressions[i - 1]));
    }
    // A macro sees the template's own names, not those of the place it is called from.
    std::vector<Dict> outer(std::make_move_iterator(scopes_.begin() + 1),
                            std::make_move_iterator(scopes_.end()));
    scopes_.resize(1);
    scopes_.push_back(std::move(scope));
    Value text = captured(macro.body);
    scopes_.resize(1);
    std::move(outer.begin(), outer.end(), std::back_inserter(scopes_));
    --calls_;
    return text;
  }

  void print(const Value& value) {
    if (value.as<Bound>() || value.as<Macro>())
      fail(ErrorKind::unsupported, "printing a function is not supported");
    if (const std::string* text = value.string()) return write(*text);
    write(budget_.printed(value));
  }

  // A string that grows is there twice for a moment.
  void write(std::string_view text) {
    budget_.take(2 * text.size());
    budget_.look_through(text.size());
    output_ += text;
  }

  template <typename Body>
  auto checked(Body&& body) -> decltype(body()) {
    try {
      return body();
    } catch (const TemplateFault& problem) {
      fail(problem.kind, problem.kind == ErrorKind::unsupported ? problem.what + " is not supported"
                                                                : problem.what);
    }
  }

  [[noreturn]] void fail(ErrorKind kind, const std::string& what) const {
    throw template_error(kind, context_, line_, what);
  }

  const std::string& context_;
  RenderBudget budget_;  // before all that holds values
  std::vector<Dict> scopes_;
  std::string output_;
  std::vector<TextRange> generated_;
  int line_ = 1;
  int calls_ = 0;
  int captures_ = 0;
  int nesting_ = 0;
};

}  // namespace

RenderedChat run_template(const std::vector<Statement>& program, Dict variables,
                          const std::string& context) {
  return Interpreter(std::move(variables), context).run(program);
}

}  // namespace lora::text
