#include "text/chat_expression_parser.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

namespace lora::text {

Expression ExpressionParser::node(EKind kind, std::string text) const {
  Expression out;
  out.kind = kind;
  out.line = peek().line;
  out.text = std::move(text);
  return out;
}

Expression ExpressionParser::with(Expression parent, Expression first) {
  parent.items.push_back(std::move(first));
  return parent;
}

Expression ExpressionParser::with(Expression parent, Expression first, Expression second) {
  parent.items.push_back(std::move(first));
  parent.items.push_back(std::move(second));
  return parent;
}

Expression ExpressionParser::expression() {
  const Depth depth(*this);
  Expression value = disjunction();
  while (is_name("if")) {
    Expression choice = node(EKind::choice);
    take();
    Expression condition = disjunction();
    Expression other = node(EKind::literal);
    other.literal = Value::undefined("the value of an if without else");
    if (take_name("else")) other = expression();
    choice = with(std::move(choice), std::move(value), std::move(condition));
    choice.items.push_back(std::move(other));
    value = std::move(choice);
  }
  return value;
}

Expression ExpressionParser::disjunction() {
  Expression left = conjunction();
  while (is_name("or")) {
    count_link();
    Expression both = node(EKind::binary, take().text);
    left = with(std::move(both), std::move(left), conjunction());
  }
  return left;
}

Expression ExpressionParser::conjunction() {
  Expression left = negation();
  while (is_name("and")) {
    count_link();
    Expression both = node(EKind::binary, take().text);
    left = with(std::move(both), std::move(left), negation());
  }
  return left;
}

Expression ExpressionParser::negation() {
  const Depth depth(*this);
  if (!is_name("not")) return comparison();
  Expression out = node(EKind::unary, take().text);
  return with(std::move(out), negation());
}

Expression ExpressionParser::comparison() {
  Expression first = sum();
  Expression chain = node(EKind::chain);
  while (const auto op = comparison_operator()) {
    count_link();
    if (chain.items.empty()) chain.items.push_back(std::move(first));
    chain.keywords.push_back(*op);
    chain.items.push_back(sum());
  }
  if (chain.items.empty()) return first;
  if (chain.items.size() > 2) return chain;
  chain.kind = EKind::binary;
  chain.text = std::move(chain.keywords.front());
  chain.keywords.clear();
  return chain;
}

std::optional<std::string> ExpressionParser::comparison_operator() {
  for (const std::string_view op : {"==", "!=", "<", "<=", ">", ">="})
    if (is_symbol(op)) return take().text;
  if (take_name("in")) return "in";
  if (!is_name("not") || peek(1).kind != Kind::name || peek(1).text != "in") return std::nullopt;
  take();
  take();
  return "not in";
}

Expression ExpressionParser::sum() {
  return left_associative({"+", "-"}, [&] { return concatenation(); });
}

Expression ExpressionParser::concatenation() {
  return left_associative({"~"}, [&] { return product(); });
}

Expression ExpressionParser::product() {
  return left_associative({"*", "/", "//", "%"}, [&] {
    return left_associative({"**"}, [&] { return signed_value(true); });
  });
}

Expression ExpressionParser::signed_value(bool with_filters) {
  const Depth depth(*this);
  Expression out = node(EKind::unary);
  if (is_symbol("-") || is_symbol("+")) {
    out.text = take().text;
    out = with(std::move(out), signed_value(false));
  } else {
    out = primary();
  }
  out = postfix(std::move(out));
  return with_filters ? filters(std::move(out)) : out;
}

Expression ExpressionParser::primary() {
  Expression out = node(EKind::literal);
  if (peek().kind == Kind::symbol && !is_symbol("(") && !is_symbol("[") && !is_symbol("{"))
    fail(found() + ", expected an expression");
  const TemplateToken& token = take();
  switch (token.kind) {
    case Kind::string:
      out.literal = Value::of(token.text);
      while (peek().kind == Kind::string)
        out.literal = Value::of(*out.literal.string() + take().text);
      return out;
    case Kind::integer: {
      std::int64_t value = 0;
      const bool has_base = token.text.size() > 2 && token.text[0] == '0';
      const char letter = has_base ? token.text[1] : '0';
      const int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
      const char* begin = token.text.data() + (base == 10 ? 0 : 2);
      const char* end = token.text.data() + token.text.size();
      const auto parsed = std::from_chars(begin, end, value, base);
      if (parsed.ec == std::errc::result_out_of_range)
        unsupported("the number " + token.text + ", which is beyond 64 bits,");
      if (parsed.ec != std::errc() || parsed.ptr != end) fail("the number " + token.text);
      out.literal = {value};
      return out;
    }
    case Kind::number:
      out.literal = {std::strtod(token.text.c_str(), nullptr)};
      return out;
    case Kind::name:
      if (token.text == "true" || token.text == "True") {
        out.literal = {true};
      } else if (token.text == "false" || token.text == "False") {
        out.literal = {false};
      } else if (token.text == "none" || token.text == "None") {
        out.literal = Value::none();
      } else {
        mentions_varargs_ = mentions_varargs_ || token.text == "varargs";
        mentions_kwargs_ = mentions_kwargs_ || token.text == "kwargs";
        out.kind = EKind::name;
        out.text = token.text;
      }
      return out;
    case Kind::symbol:
      if (token.text == "(") return bracketed(")", true);
      if (token.text == "[") return bracketed("]", false);
      return dictionary();
    default:
      throw template_error(ErrorKind::malformed, context(), token.line,
                           "found the end of a block, expected an expression");
  }
}

Expression ExpressionParser::bracketed(std::string_view close, bool may_be_single) {
  Expression list = node(may_be_single ? EKind::tuple : EKind::list);
  bool has_comma = false;
  while (!take_symbol(close)) {
    list.items.push_back(expression());
    if (!is_symbol(close)) {
      expect_symbol(",");
      has_comma = true;
    }
  }
  if (may_be_single && !has_comma && list.items.size() == 1) {
    Expression only = std::move(list.items.front());
    return only;
  }
  return list;
}

Expression ExpressionParser::dictionary() {
  Expression out = node(EKind::dict);
  while (!take_symbol("}")) {
    out.items.push_back(expression());
    expect_symbol(":");
    out.items.push_back(expression());
    if (!is_symbol("}")) expect_symbol(",");
  }
  return out;
}

Expression ExpressionParser::postfix(Expression value) {
  for (;;) {
    count_link();
    if (is_symbol(".")) {
      Expression out = node(EKind::attribute);
      take();
      out.text = peek().kind == Kind::integer ? take().text : expect_identifier();
      value = with(std::move(out), std::move(value));
    } else if (is_symbol("[")) {
      value = subscript(std::move(value));
    } else if (is_symbol("(")) {
      Expression out = with(node(EKind::call), std::move(value));
      arguments(out);
      value = std::move(out);
    } else {
      return value;
    }
  }
}

Expression ExpressionParser::subscript(Expression value) {
  Expression out = with(node(EKind::index), std::move(value));
  take();
  Expression nothing = node(EKind::literal);
  nothing.literal = Value::none();
  Expression first = is_symbol(":") ? nothing : expression();
  out.items.push_back(std::move(first));
  if (is_symbol(":")) {
    out.kind = EKind::slice;
    while (take_symbol(":"))
      out.items.push_back(is_symbol(":") || is_symbol("]") ? nothing : expression());
    if (out.items.size() > 4) fail("a slice with more than three parts");
    out.items.resize(4, nothing);
  }
  expect_symbol("]");
  return out;
}

void ExpressionParser::arguments(Expression& call) {
  expect_symbol("(");
  while (!take_symbol(")")) {
    if (take_symbol("*")) {
      call.items.push_back(with(node(EKind::unpacked), expression()));
    } else if (take_symbol("**")) {
      call.keywords.emplace_back();
      call.values.push_back(expression());
    } else if (peek().kind == Kind::name && peek(1).kind == Kind::symbol && peek(1).text == "=") {
      call.keywords.push_back(take().text);
      take();
      call.values.push_back(expression());
    } else {
      call.items.push_back(expression());
    }
    if (!is_symbol(")")) expect_symbol(",");
  }
}

Expression ExpressionParser::filter_chain(Expression value) {
  do {
    count_link();
    Expression out = with(node(EKind::filter, expect_identifier()), std::move(value));
    if (is_symbol("(")) arguments(out);
    value = std::move(out);
  } while (take_symbol("|"));
  return value;
}

Expression ExpressionParser::filters(Expression value) {
  for (;;) {
    count_link();
    if (take_symbol("|")) {
      value = filter_chain(std::move(value));
    } else if (is_name("is")) {
      value = test(std::move(value));
    } else {
      return value;
    }
  }
}

Expression ExpressionParser::test(Expression value) {
  take();
  const bool is_negated = take_name("not");
  Expression out = node(EKind::test);
  out.text = expect_identifier();
  while (take_symbol(".")) out.text += "." + expect_identifier();
  out.items.push_back(std::move(value));
  const bool has_operand =
      peek().kind == Kind::string || peek().kind == Kind::integer || peek().kind == Kind::number ||
      is_symbol("[") || is_symbol("{") ||
      (peek().kind == Kind::name && !is_name("else") && !is_name("or") && !is_name("and") &&
       !is_name("is") && !is_name("if") && !is_name("in") && !is_name("not"));
  if (is_symbol("(")) {
    arguments(out);
  } else if (has_operand) {
    out.items.push_back(postfix(primary()));
  }
  if (!is_negated) return out;
  return with(node(EKind::unary, "not"), std::move(out));
}

}  // namespace lora::text
