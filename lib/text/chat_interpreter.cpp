#include "text/chat_interpreter.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>
#include <iterator>
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
  Interpreter(Dict variables, const std::tm* now, const std::string& context)
      : context_(context), now_(now), budget_(size_of_all(variables)) {
    scopes_.push_back(std::move(variables));
  }

  RenderedChat run(const std::vector<Statement>& program) {
    checked([&] { return execute(program); });
    // A block that was set and never shown, or shown elsewhere, may reach over the end.
    for (TextRange& range : generated_) {
      range.end = std::min(range.end, output_.size());
      range.begin = std::min(range.begin, range.end);
    }
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
        loop(statement, evaluate(statement.expressions[0]), 1);
        break;
      case SKind::set:
        bind(scopes_.size() - 1, statement.targets[0], evaluate(statement.expressions[0]));
        break;
      case SKind::set_block:
        bind(scopes_.size() - 1, statement.targets[0], filtered_block(statement));
        break;
      case SKind::filtered:
        print(filtered_block(statement));
        break;
      case SKind::with:
        return execute_with(statement);
      case SKind::macro:
        define(scopes_.back(), statement.names[0], budget_.macro(statement, inner_scopes()));
        break;
      case SKind::call:
        call_block(statement);
        break;
      case SKind::generation:
        return generate(statement);
      case SKind::leave:
        return Flow::leave;
      case SKind::next:
        return Flow::next;
    }
    return Flow::on;
  }

  // A body with a scope of its own, which transformers makes a macro of. Inside another macro or a
  // set block it stands, for transformers, where the text that goes out has come to.
  Flow generate(const Statement& statement) {
    const std::size_t begin = output_.size();
    const std::size_t shown = captures_ == 0 ? begin : shown_;
    scopes_.emplace_back();
    const Flow flow = execute(statement.body);
    scopes_.pop_back();
    generated_.push_back({shown, shown + output_.size() - begin});
    return flow;
  }

  Flow execute_with(const Statement& statement) {
    std::vector<Value> values;
    for (const Expression& expression : statement.expressions)
      values.push_back(evaluate(expression));
    scopes_.emplace_back();
    for (std::size_t i = 0; i < values.size(); ++i)
      bind(scopes_.size() - 1, statement.targets[i], values[i]);
    const Flow flow = execute(statement.body);
    scopes_.pop_back();
    return flow;
  }

  Value filtered_block(const Statement& statement) {
    const Value text = captured(statement.body);
    scopes_.emplace_back();
    define(scopes_.back(), kCaptured, text);
    Value result = evaluate(statement.expressions[0]);
    scopes_.pop_back();
    return result;
  }

  void define(Dict& scope, const std::string& name, const Value& value) {
    budget_.search(scope);
    scope.set(name, value);
  }

  // By the scope's number: what is evaluated on the way may move scopes.
  void bind(std::size_t scope, const Expression& target, const Value& value) {
    if (target.kind == EKind::name) {
      define(scopes_[scope], target.text, value);
      return;
    }
    if (target.kind == EKind::attribute) {
      set_member(target.items[0].text, target.text, value);
      return;
    }
    const Value source = listed(value, budget_);
    const List& items = *source.list();
    if (items.size() != target.items.size())
      fail(ErrorKind::incompatible, "found " + std::to_string(items.size()) +
                                        " values to unpack, expected " +
                                        std::to_string(target.items.size()));
    for (std::size_t i = 0; i < items.size(); ++i) bind(scope, target.items[i], items[i]);
  }

  void set_member(const std::string& name, const std::string& member, const Value& value) {
    const Value* holder = look_up(name);
    const auto* shared = holder ? holder->as<std::shared_ptr<Dict>>() : nullptr;
    if (shared == nullptr || !(*shared)->is_namespace)
      fail(ErrorKind::incompatible, "'" + name + "' is not a namespace");
    if (member.starts_with('_'))
      fail(ErrorKind::incompatible, "a namespace cannot hold '" + member + "'");
    budget_.require_storable(value);
    define(**shared, member, value);
  }

  void loop(const Statement& statement, const Value& over, int depth) {
    Value source = listed(over, budget_);
    const std::size_t base = scopes_.size();
    if (statement.expressions.size() > 1) {
      List kept;
      for (const Value& item : List(*source.list())) {
        scopes_.emplace_back();
        bind(base, statement.targets[0], item);
        if (is_true(evaluate(statement.expressions[1]))) kept.push_back(item);
        scopes_.pop_back();
      }
      source = budget_.list(std::move(kept));
    }
    const List& items = *source.list();
    loops_.push_back({&statement, base, depth, 0, {}});
    for (std::size_t i = 0; i < items.size(); ++i) {
      budget_.step();
      loops_.back().index = i;
      scopes_.emplace_back();
      bind(base, statement.targets[0], items[i]);
      define(scopes_.back(), "loop", loop_state(items, i, depth));
      const Flow flow = execute(statement.body);
      scopes_.pop_back();
      if (flow == Flow::leave) break;
    }
    loops_.pop_back();
    if (!items.empty()) return;
    scopes_.emplace_back();
    execute(statement.other);
    scopes_.pop_back();
  }

  Value loop_state(const List& items, std::size_t i, int depth) {
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
    loop.set("depth", {std::int64_t{depth}});
    loop.set("depth0", {std::int64_t{depth} - 1});
    if (i > 0) loop.set("previtem", items[i - 1]);
    if (index + 1 < count) loop.set("nextitem", items[i + 1]);
    return budget_.dict(std::move(loop));
  }

  // `loop(items)`, `loop.cycle(...)` and `loop.changed(...)`; nullopt for any other call.
  std::optional<Value> call_of_loop(const Expression& expression) {
    const Expression& callee = expression.items[0];
    const bool is_member = callee.kind == EKind::attribute && callee.items[0].kind == EKind::name &&
                           callee.items[0].text == "loop";
    const bool is_loop = callee.kind == EKind::name && callee.text == "loop";
    if (loops_.empty() || (!is_loop && !is_member)) return std::nullopt;
    if (is_loop) return recursive_loop(arguments_of(expression));
    if (callee.text != "cycle" && callee.text != "changed") return std::nullopt;
    const Arguments arguments = arguments_of(expression);
    LoopFrame& frame = loops_.back();
    if (callee.text == "cycle") {
      if (arguments.positional.empty()) fail(ErrorKind::incompatible, "loop.cycle got no values");
      return arguments.positional[frame.index % arguments.positional.size()];
    }
    const bool is_same =
        frame.last &&
        std::equal(frame.last->begin(), frame.last->end(), arguments.positional.begin(),
                   arguments.positional.end(),
                   [&](const Value& a, const Value& b) { return are_equal(a, b, budget_); });
    frame.last = arguments.positional;
    return Value{!is_same};
  }

  // The body once more, over other items, seeing what the loop itself sees.
  Value recursive_loop(const Arguments& arguments) {
    const LoopFrame frame = loops_.back();
    if (!frame.statement->is_recursive || arguments.positional.size() != 1)
      fail(ErrorKind::incompatible, "loop is called, but the loop is not recursive");
    const Calls calls(*this);
    std::vector<Dict> inner(
        std::make_move_iterator(scopes_.begin() + static_cast<std::ptrdiff_t>(frame.base)),
        std::make_move_iterator(scopes_.end()));
    scopes_.resize(frame.base);
    Value text =
        captured_by([&] { loop(*frame.statement, arguments.positional[0], frame.depth + 1); });
    scopes_.resize(frame.base);
    std::move(inner.begin(), inner.end(), std::back_inserter(scopes_));
    return text;
  }

  Value captured(const std::vector<Statement>& body) {
    return captured_by([&] { execute(body); });
  }

  template <typename Body>
  Value captured_by(Body&& body) {
    if (captures_ == 0) shown_ = output_.size();
    std::string outer = std::exchange(output_, {});
    ++captures_;
    body();
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

  Value name(const std::string& text) {
    if (const Value* value = look_up(text)) return *value;
    constexpr std::array<std::string_view, 8> kBuiltins{
        "raise_exception", "namespace", "range", "dict", "cycler", "joiner", "lipsum", "self"};
    if (std::find(kBuiltins.begin(), kBuiltins.end(), text) != kBuiltins.end() ||
        (text == "strftime_now" && now_ != nullptr))
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
    if (value.as<Macro>() || value.as<Bound>())
      fail(ErrorKind::unsupported, "the attribute " + key + " of a function is not supported");
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

  // Python's slice.indices() for a positive or negative step.
  Value slice(const Value& value, const Value& first, const Value& last, const Value& stride) {
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
    for (std::size_t i = 1; i < expression.items.size(); ++i) {
      Value value = evaluate(expression.items[i]);
      if (expression.items[i].kind != EKind::unpacked) {
        out.positional.push_back(std::move(value));
        continue;
      }
      const Value items = listed(value, budget_);
      budget_.require(items.list()->size() * sizeof(Value));
      out.positional.insert(out.positional.end(), items.list()->begin(), items.list()->end());
    }
    for (std::size_t i = 0; i < expression.keywords.size(); ++i) {
      Value value = evaluate(expression.values[i]);
      if (!expression.keywords[i].empty()) {
        out.named.emplace_back(expression.keywords[i], std::move(value));
        continue;
      }
      if (value.dict() == nullptr)
        fail(ErrorKind::incompatible,
             "'**' got " + std::string(type_name(value)) + ", expected dict");
      budget_.step(value.dict()->members.size());
      for (const auto& member : value.dict()->members) out.named.push_back(member);
    }
    return out;
  }

  Value call(const Expression& expression) {
    if (auto result = call_of_loop(expression)) return std::move(*result);
    const Value callee = evaluate(expression.items[0]);
    const Arguments arguments = arguments_of(expression);
    line_ = expression.line;
    if (const auto* macro = callee.as<Macro>()) return call_macro(*macro, arguments);
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
    if (function == "cycler" || function == "joiner" || function == "lipsum" || function == "self")
      fail(ErrorKind::unsupported, "the function " + function + " is not supported");
    if (function == "strftime_now") return formatted_time(arguments);
    Dict dict;
    if (!arguments.positional.empty()) {
      const Dict* first = arguments.positional[0].dict();
      if (first == nullptr || arguments.positional.size() > 1)
        fail(ErrorKind::unsupported, function + " of anything but a dict is not supported");
      budget_.require(first->members.size() * 2 * sizeof(Value));
      dict = *first;
    }
    dict.is_namespace = function == "namespace";
    for (const auto& [key, value] : arguments.named) define(dict, key, value);
    for (const auto& [key, value] : dict.members)
      if (dict.is_namespace && key.starts_with('_'))
        fail(ErrorKind::incompatible, "a namespace cannot hold '" + key + "'");
    return budget_.dict(std::move(dict));
  }

  Value formatted_time(const Arguments& arguments) {
    const Value* format = arguments.find(0, "format");
    if (format == nullptr) fail(ErrorKind::incompatible, "strftime_now needs a format");
    const std::string& pattern = string_of(*format, "strftime_now");
    std::array<char, 1024> buffer;
    const std::size_t size = std::strftime(buffer.data(), buffer.size(), pattern.c_str(), now_);
    return budget_.text(std::string(buffer.data(), size));
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
    return budget_.list(std::move(out), Shape::range);
  }

  // The scopes inside the template's own.
  std::vector<Dict> inner_scopes() const { return {scopes_.begin() + 1, scopes_.end()}; }

  // Counts calls, each of which takes some of the stack.
  struct Calls {
    explicit Calls(Interpreter& interpreter) : calls(interpreter.calls_) {
      if (++calls > kMaxCalls)
        interpreter.fail(ErrorKind::unsupported, "more than 50 nested calls of macros");
    }
    ~Calls() { --calls; }
    Calls(const Calls&) = delete;
    Calls& operator=(const Calls&) = delete;
    int& calls;
  };

  // A macro sees the template's own names and those of the place it was defined at, not those of
  // the place it is called from.
  Value call_macro(const Macro& macro, const Arguments& arguments) {
    const Calls calls(*this);
    const Statement& definition = *macro.definition;
    std::vector<Dict> outer(std::make_move_iterator(scopes_.begin() + 1),
                            std::make_move_iterator(scopes_.end()));
    std::vector<LoopFrame> outer_loops = std::exchange(loops_, {});
    scopes_.resize(1);
    if (macro.surroundings)
      scopes_.insert(scopes_.end(), macro.surroundings->begin(), macro.surroundings->end());
    scopes_.emplace_back();
    bind_parameters(definition, arguments);
    Value text = captured(definition.body);
    scopes_.resize(1);
    std::move(outer.begin(), outer.end(), std::back_inserter(scopes_));
    loops_ = std::move(outer_loops);
    return text;
  }

  void bind_parameters(const Statement& macro, const Arguments& arguments) {
    const std::size_t first_default = macro.kind == SKind::call ? 1 : 0;
    const std::size_t count = macro.names.size() - 1;
    for (std::size_t i = 0; i < count; ++i) {
      const std::string& name = macro.names[i + 1];
      const Value* given = arguments.find(i, name);
      Value value = given ? *given : evaluate(macro.expressions[first_default + i]);
      define(scopes_.back(), name, value);
    }
    List further;
    for (std::size_t i = count; i < arguments.positional.size(); ++i)
      further.push_back(arguments.positional[i]);
    Dict named;
    for (const auto& [key, value] : arguments.named) {
      if (std::find(macro.names.begin() + 1, macro.names.end(), key) != macro.names.end()) continue;
      if (key == "caller" && value.as<Macro>())
        define(scopes_.back(), key, value);
      else
        define(named, key, value);
    }
    if (!further.empty() && !macro.takes_varargs)
      fail(ErrorKind::incompatible, "macro " + macro.names[0] + " takes not more than " +
                                        std::to_string(count) + " arguments");
    if (!named.members.empty() && !macro.takes_kwargs)
      fail(ErrorKind::incompatible,
           "macro " + macro.names[0] + " takes no argument " + named.members[0].first);
    if (macro.takes_varargs)
      define(scopes_.back(), "varargs", budget_.list(std::move(further), Shape::tuple));
    if (macro.takes_kwargs) define(scopes_.back(), "kwargs", budget_.dict(std::move(named)));
  }

  // {% call %}: the body is a macro that the called one knows as `caller`.
  void call_block(const Statement& statement) {
    const Expression& expression = statement.expressions[0];
    const Value callee = evaluate(expression.items[0]);
    const auto* macro = callee.as<Macro>();
    if (macro == nullptr)
      fail(ErrorKind::unsupported, "{% call %} of anything but a macro is not supported");
    Arguments arguments = arguments_of(expression);
    arguments.named.emplace_back("caller", budget_.macro(statement, inner_scopes()));
    line_ = expression.line;
    print(call_macro(*macro, arguments));
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

  struct LoopFrame {
    const Statement* statement;
    std::size_t base;  // scopes around it
    int depth;         // of recursion, from 1
    std::size_t index;
    std::optional<List> last;  // what loop.changed got
  };

  const std::string& context_;
  const std::tm* now_;
  RenderBudget budget_;  // before all that holds values
  std::vector<Dict> scopes_;
  std::string output_;
  std::vector<TextRange> generated_;
  std::vector<LoopFrame> loops_;
  std::size_t shown_ = 0;  // bytes of the text outside the captures
  int line_ = 1;
  int calls_ = 0;
  int captures_ = 0;
  int nesting_ = 0;
};

}  // namespace

RenderedChat run_template(const std::vector<Statement>& program, Dict variables, const std::tm* now,
                          const std::string& context) {
  return Interpreter(std::move(variables), now, context).run(program);
}

}  // namespace lora::text
