// Loops, macros and functions of the template language.
#include <algorithm>
#include <array>
#include <iterator>

#include "text/chat_machine.h"

namespace lora::text {
namespace {

using EKind = Expression::Kind;
using SKind = Statement::Kind;

constexpr std::size_t kLongestReason = 1000;
constexpr std::int64_t kMaxRange = 100'000;

}  // namespace

void Interpreter::loop(const Statement& statement, const Value& over, int depth) {
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

Value Interpreter::loop_state(const List& items, std::size_t i, int depth) {
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

std::optional<Value> Interpreter::call_of_loop(const Expression& expression) {
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
      frame.last && std::equal(frame.last->begin(), frame.last->end(), arguments.positional.begin(),
                               arguments.positional.end(), [&](const Value& a, const Value& b) {
                                 return are_equal(a, b, budget_);
                               });
  frame.last = arguments.positional;
  return Value{!is_same};
}

Value Interpreter::recursive_loop(const Arguments& arguments) {
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

Arguments Interpreter::arguments_of(const Expression& expression) {
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

Value Interpreter::call(const Expression& expression) {
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

Value Interpreter::call_builtin(const std::string& function, const Arguments& arguments) {
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

Value Interpreter::formatted_time(const Arguments& arguments) {
  const Value* format = arguments.find(0, "format");
  if (format == nullptr) fail(ErrorKind::incompatible, "strftime_now needs a format");
  const std::string& pattern = string_of(*format, "strftime_now");
  std::array<char, 1024> buffer;
  const std::size_t size = std::strftime(buffer.data(), buffer.size(), pattern.c_str(), now_);
  return budget_.text(std::string(buffer.data(), size));
}

Value Interpreter::range(const Arguments& arguments) {
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

Value Interpreter::call_macro(const Macro& macro, const Arguments& arguments) {
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

void Interpreter::bind_parameters(const Statement& macro, const Arguments& arguments) {
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

void Interpreter::call_block(const Statement& statement) {
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

}  // namespace lora::text
