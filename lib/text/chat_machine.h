// The machine that runs chat templates: scopes, loops, what has been written so far.
#pragma once

#include <cstdint>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lora/base/error.h"
#include "text/chat_budget.h"
#include "text/chat_functions.h"
#include "text/chat_interpreter.h"

namespace lora::text {

inline constexpr int kMaxCalls = 50;
inline constexpr int kMaxNesting = 1000;

enum class Flow { on, leave, next };

class Interpreter {
 public:
  Interpreter(Dict variables, const std::tm* now, const std::string& context)
      : context_(context), now_(now), budget_(size_of(variables)) {
    scopes_.push_back(std::move(variables));
  }
  RenderedChat run(const std::vector<Statement>& program);

 private:
  Flow execute(const std::vector<Statement>& statements);
  Flow execute(const Statement& statement);
  // A body with a scope of its own, which transformers makes a macro of. Inside another macro or a
  // set block it stands, for transformers, where the text that goes out has come to.
  Flow generate(const Statement& statement);
  Flow execute_with(const Statement& statement);
  Value filtered_block(const Statement& statement);
  void define(Dict& scope, const std::string& name, const Value& value);
  // By the scope's number: what is evaluated on the way may move scopes.
  void bind(std::size_t scope, const Expression& target, const Value& value);
  void set_member(const std::string& name, const std::string& member, const Value& value);
  void loop(const Statement& statement, const Value& over, int depth);
  Value loop_state(const List& items, std::size_t i, int depth);
  // `loop(items)`, `loop.cycle(...)` and `loop.changed(...)`; nullopt for any other call.
  std::optional<Value> call_of_loop(const Expression& expression);
  // The body once more, over other items, seeing what the loop itself sees.
  Value recursive_loop(const Arguments& arguments);
  Value captured(const std::vector<Statement>& body);

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
  const Value* look_up(std::string_view name);
  const Value* member_of(const Value& value, std::string_view key);

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
  Value evaluate(const Expression& expression);
  Value name(const std::string& text);
  Value attribute(const Value& value, const std::string& key);
  Value index(const Value& value, const Value& key);
  // Python's slice.indices() for a positive or negative step.
  Value slice(const Value& value, const Value& first, const Value& last, const Value& stride);
  std::int64_t bound(const Value& value, std::int64_t fallback);
  Arguments arguments_of(const Expression& expression);
  Value call(const Expression& expression);
  Value call_builtin(const std::string& function, const Arguments& arguments);
  Value formatted_time(const Arguments& arguments);
  Value range(const Arguments& arguments);
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
  Value call_macro(const Macro& macro, const Arguments& arguments);
  void bind_parameters(const Statement& macro, const Arguments& arguments);
  // {% call %}: the body is a macro that the called one knows as `caller`.
  void call_block(const Statement& statement);
  void print(const Value& value);
  // A string that grows is there twice for a moment.
  void write(std::string_view text);

  template <typename Body>
  auto checked(Body&& body) -> decltype(body()) {
    try {
      return body();
    } catch (const TemplateFault& problem) {
      fail(problem.kind, problem.kind == ErrorKind::unsupported ? problem.what + " is not supported"
                                                                : problem.what);
    }
  }
  [[noreturn]] void fail(ErrorKind kind, const std::string& what) const;

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

}  // namespace lora::text
