#include "text/chat_parser.h"

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <utility>

#include "text/chat_expression_parser.h"

namespace lora::text {
namespace {

using SKind = Statement::Kind;

bool is_literal(std::string_view name) {
  for (const std::string_view literal : {"true", "True", "false", "False", "none", "None"})
    if (name == literal) return true;
  return false;
}

class StatementParser : ExpressionParser {
 public:
  StatementParser(const std::vector<TemplateToken>& tokens, const std::string& context)
      : ExpressionParser(tokens, context) {}

  std::vector<Statement> run() {
    auto body = statements({});
    if (peek().kind != Kind::end) fail("an unexpected {% " + peek_block_name() + " %}");
    return body;
  }

 private:
  // Statements up to one of the block names in `until`, whose opening is left in place.
  std::vector<Statement> statements(std::initializer_list<std::string_view> until) {
    const Depth depth(*this);
    std::vector<Statement> out;
    for (;;) {
      const TemplateToken& token = peek();
      if (token.kind == Kind::end) {
        if (until.size() != 0)
          fail("the end of the template, expected {% " + std::string(*(until.end() - 1)) + " %}");
        return out;
      }
      if (token.kind == Kind::text) {
        Statement text = statement(SKind::text);
        text.text = take().text;
        out.push_back(std::move(text));
      } else if (token.kind == Kind::print_begin) {
        Statement print = statement(SKind::print);
        take();
        print.expressions.push_back(tuple());
        expect(Kind::print_end, "}}");
        out.push_back(std::move(print));
      } else {
        const std::string name = peek_block_name();
        if (name.starts_with("end") || name == "else" || name == "elif") {
          if (std::find(until.begin(), until.end(), name) != until.end()) return out;
          fail("an unexpected {% " + name + " %}");
        }
        take();
        out.push_back(block());
      }
    }
  }

  Statement statement(SKind kind) const {
    Statement out;
    out.kind = kind;
    out.line = peek().line;
    return out;
  }

  Statement block() {
    if (take_name("for")) return for_block();
    if (take_name("if")) return if_block();
    if (take_name("set")) return set_block();
    if (take_name("macro")) return macro_block();
    if (take_name("call")) return call_block();
    if (take_name("with")) return with_block();
    if (take_name("filter")) {
      Statement out = statement(SKind::filtered);
      out.expressions.push_back(filter_chain(captured_name()));
      end_of_block();
      out.body = statements({"endfilter"});
      closing();
      return out;
    }
    if (is_name("generation")) {
      Statement out = statement(SKind::generation);
      take();
      end_of_block();
      out.body = statements({"endgeneration"});
      closing();
      return out;
    }
    if (is_name("break") || is_name("continue")) {
      Statement out = statement(is_name("break") ? SKind::leave : SKind::next);
      take();
      end_of_block();
      return out;
    }
    unsupported("{% " + peek().text + " %}");
  }

  void end_of_block() { expect(Kind::block_end, "%}"); }
  void closing() {
    take();
    take();
    end_of_block();
  }

  Statement for_block() {
    Statement out = statement(SKind::loop);
    out.targets.push_back(target());
    if (!take_name("in")) fail(found() + ", expected in");
    // `if` filters the loop here and does not start an inline condition.
    out.expressions.push_back(tuple_of([&] { return disjunction(); }));
    if (take_name("if")) out.expressions.push_back(expression());
    out.is_recursive = take_name("recursive");
    end_of_block();
    out.body = statements({"else", "endfor"});
    if (peek_block_name() == "else") {
      closing();
      out.other = statements({"endfor"});
    }
    closing();
    return out;
  }

  Statement if_block() {
    const Depth depth(*this);
    Statement out = statement(SKind::branch);
    out.expressions.push_back(expression());
    end_of_block();
    out.body = statements({"elif", "else", "endif"});
    if (peek_block_name() == "elif") {
      take();
      take();
      out.other.push_back(if_block());
      return out;
    }
    if (peek_block_name() == "else") {
      closing();
      out.other = statements({"endif"});
    }
    closing();
    return out;
  }

  Statement set_block() {
    Statement out = statement(SKind::set);
    out.targets.push_back(target());
    if (take_symbol("=")) {
      out.expressions.push_back(tuple());
      end_of_block();
      return out;
    }
    if (out.targets[0].kind == EKind::tuple) fail(found() + ", expected '='");
    Expression text = captured_name();
    out.expressions.push_back(take_symbol("|") ? filter_chain(std::move(text)) : std::move(text));
    end_of_block();
    out.kind = SKind::set_block;
    out.body = statements({"endset"});
    closing();
    return out;
  }

  Statement with_block() {
    Statement out = statement(SKind::with);
    while (peek().kind != Kind::block_end) {
      if (!out.targets.empty()) expect_symbol(",");
      out.targets.push_back(single_target());
      expect_symbol("=");
      out.expressions.push_back(expression());
    }
    end_of_block();
    out.body = statements({"endwith"});
    closing();
    return out;
  }

  Statement call_block() {
    Statement out = statement(SKind::call);
    out.names.emplace_back("caller");
    std::vector<Expression> defaults;
    if (is_symbol("(")) defaults = parameters(out);
    out.expressions.push_back(signed_value(false));
    if (out.expressions[0].kind != EKind::call) fail("no call in {% call %}");
    std::move(defaults.begin(), defaults.end(), std::back_inserter(out.expressions));
    end_of_block();
    out.body = statements({"endcall"});
    closing();
    return out;
  }

  // What is assigned to: `a`, `a.b`, `a, b`, `a, (b, c)`.
  Expression target() {
    Expression first = single_target();
    if (!is_symbol(",")) return first;
    Expression all = with(node(EKind::tuple), std::move(first));
    while (take_symbol(",")) {
      if (is_symbol("=") || is_symbol(")") || is_name("in")) break;
      all.items.push_back(single_target());
    }
    return all;
  }

  Expression single_target() {
    const Depth depth(*this);
    if (take_symbol("(")) {
      Expression inner = target();
      expect_symbol(")");
      return inner;
    }
    Expression name = node(EKind::name);
    name.text = expect_identifier();
    if (is_literal(name.text)) fail("'" + name.text + "', which cannot be assigned to");
    if (!take_symbol(".")) return name;
    Expression member = node(EKind::attribute);
    member.text = expect_identifier();
    return with(std::move(member), std::move(name));
  }

  Expression captured_name() const { return node(EKind::name, kCaptured); }

  Statement macro_block() {
    Statement out = statement(SKind::macro);
    out.names.push_back(expect_identifier());
    out.expressions = parameters(out);
    end_of_block();
    const bool outer_varargs = std::exchange(mentions_varargs_, false);
    const bool outer_kwargs = std::exchange(mentions_kwargs_, false);
    out.body = statements({"endmacro"});
    out.takes_varargs = std::exchange(mentions_varargs_, outer_varargs);
    out.takes_kwargs = std::exchange(mentions_kwargs_, outer_kwargs);
    closing();
    return out;
  }

  // Adds the names to those of the macro; returns what each is when it is not given.
  std::vector<Expression> parameters(Statement& macro) {
    std::vector<Expression> defaults;
    expect_symbol("(");
    while (!take_symbol(")")) {
      macro.names.push_back(expect_identifier());
      Expression absent;
      absent.literal = Value::undefined(macro.names.back());
      defaults.push_back(take_symbol("=") ? expression() : std::move(absent));
      if (!is_symbol(")")) expect_symbol(",");
    }
    return defaults;
  }
};

}  // namespace

std::vector<Statement> parse_template(const std::vector<TemplateToken>& tokens,
                                      const std::string& context) {
  return StatementParser(tokens, context).run();
}

}  // namespace lora::text
