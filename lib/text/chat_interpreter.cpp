#include "text/chat_interpreter.h"

#include <algorithm>

#include "text/chat_machine.h"

namespace lora::text {
namespace {

using EKind = Expression::Kind;
using SKind = Statement::Kind;

}  // namespace

RenderedChat Interpreter::run(const std::vector<Statement>& program) {
  checked([&] { return execute(program); });
  // A block that was set and never shown, or shown elsewhere, may reach over the end.
  for (TextRange& range : generated_) {
    range.end = std::min(range.end, output_.size());
    range.begin = std::min(range.begin, range.end);
  }
  return {std::move(output_), std::move(generated_)};
}

Flow Interpreter::execute(const std::vector<Statement>& statements) {
  for (const Statement& statement : statements) {
    line_ = statement.line;
    budget_.step();
    if (const Flow flow = execute(statement); flow != Flow::on) return flow;
  }
  return Flow::on;
}

Flow Interpreter::execute(const Statement& statement) {
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

Flow Interpreter::generate(const Statement& statement) {
  const std::size_t begin = output_.size();
  const std::size_t shown = captures_ == 0 ? begin : shown_;
  scopes_.emplace_back();
  const Flow flow = execute(statement.body);
  scopes_.pop_back();
  generated_.push_back({shown, shown + output_.size() - begin});
  return flow;
}

Flow Interpreter::execute_with(const Statement& statement) {
  std::vector<Value> values;
  for (const Expression& expression : statement.expressions) values.push_back(evaluate(expression));
  scopes_.emplace_back();
  for (std::size_t i = 0; i < values.size(); ++i)
    bind(scopes_.size() - 1, statement.targets[i], values[i]);
  const Flow flow = execute(statement.body);
  scopes_.pop_back();
  return flow;
}

Value Interpreter::filtered_block(const Statement& statement) {
  const Value text = captured(statement.body);
  scopes_.emplace_back();
  define(scopes_.back(), kCaptured, text);
  Value result = evaluate(statement.expressions[0]);
  scopes_.pop_back();
  return result;
}

void Interpreter::define(Dict& scope, const std::string& name, const Value& value) {
  budget_.search(scope);
  scope.set(name, value);
}

void Interpreter::bind(std::size_t scope, const Expression& target, const Value& value) {
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

void Interpreter::set_member(const std::string& name, const std::string& member,
                             const Value& value) {
  const Value* holder = look_up(name);
  const auto* shared = holder ? holder->as<std::shared_ptr<Dict>>() : nullptr;
  if (shared == nullptr || !(*shared)->is_namespace)
    fail(ErrorKind::incompatible, "'" + name + "' is not a namespace");
  if (member.starts_with('_'))
    fail(ErrorKind::incompatible, "a namespace cannot hold '" + member + "'");
  budget_.require_storable(value);
  define(**shared, member, value);
}

Value Interpreter::captured(const std::vector<Statement>& body) {
  return captured_by([&] { execute(body); });
}

const Value* Interpreter::look_up(std::string_view name) {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    budget_.search(*scope);
    if (const Value* value = scope->find(name)) return value;
  }
  return nullptr;
}

const Value* Interpreter::member_of(const Value& value, std::string_view key) {
  if (value.dict() == nullptr) return nullptr;
  budget_.search(*value.dict());
  return value.dict()->find(key);
}

void Interpreter::print(const Value& value) {
  if (value.as<Bound>() || value.as<Macro>())
    fail(ErrorKind::unsupported, "printing a function is not supported");
  if (const std::string* text = value.string()) return write(*text);
  write(budget_.printed(value));
}

void Interpreter::write(std::string_view text) {
  budget_.take(2 * text.size());
  budget_.look_through(text.size());
  output_ += text;
}

void Interpreter::fail(ErrorKind kind, const std::string& what) const {
  throw template_error(kind, context_, line_, what);
}

RenderedChat run_template(const std::vector<Statement>& program, Dict variables, const std::tm* now,
                          const std::string& context) {
  return Interpreter(std::move(variables), now, context).run(program);
}

}  // namespace lora::text
