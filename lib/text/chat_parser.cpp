#include "text/chat_parser.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <initializer_list>

namespace lora::text {
namespace {

using Kind = TemplateToken::Kind;
using EKind = Expression::Kind;
using SKind = Statement::Kind;

constexpr int kMaxDepth = 100;
constexpr int kMaxLinks = 20000;

class Parser {
 public:
  Parser(const std::vector<TemplateToken>& tokens, const std::string& context)
      : tokens_(tokens), context_(context) {}

  std::vector<Statement> run() {
    auto body = statements({});
    if (peek().kind != Kind::end) fail("an unexpected {% " + peek_block_name() + " %}");
    return body;
  }

 private:
  // Counts nesting, so that a hostile template cannot exhaust the stack.
  class Depth {
   public:
    explicit Depth(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxDepth) parser_.fail("more than 100 levels of nesting");
    }
    ~Depth() { --parser_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    Parser& parser_;
  };

  const TemplateToken& peek(std::size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  const TemplateToken& take() {
    const TemplateToken& token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool is_symbol(std::string_view symbol) const {
    return peek().kind == Kind::symbol && peek().text == symbol;
  }
  bool is_name(std::string_view name) const {
    return peek().kind == Kind::name && peek().text == name;
  }
  bool take_symbol(std::string_view symbol) {
    if (!is_symbol(symbol)) return false;
    take();
    return true;
  }
  bool take_name(std::string_view name) {
    if (!is_name(name)) return false;
    take();
    return true;
  }
  void expect_symbol(std::string_view symbol) {
    if (!take_symbol(symbol)) fail(found() + ", expected '" + std::string(symbol) + "'");
  }
  std::string expect_identifier() {
    if (peek().kind != Kind::name) fail(found() + ", expected a name");
    return take().text;
  }
  void expect(Kind kind, std::string_view what) {
    if (peek().kind != kind) fail(found() + ", expected " + std::string(what));
    take();
  }
  std::string found() const {
    switch (peek().kind) {
      case Kind::end:
        return "the end of the template";
      case Kind::print_end:
        return "}}";
      case Kind::block_end:
        return "%}";
      default:
        return "'" + peek().text + "'";
    }
  }
  std::string peek_block_name() const { return peek(1).text; }

  [[noreturn]] void fail(const std::string& what) const {
    throw template_error(ErrorKind::malformed, context_, peek().line, "found " + what);
  }
  [[noreturn]] void unsupported(const std::string& what) const {
    throw template_error(ErrorKind::unsupported, context_, peek().line, what + " is not supported");
  }

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
        print.expressions.push_back(expression());
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
    const bool in_brackets = take_symbol("(");
    do out.names.push_back(expect_identifier());
    while (take_symbol(","));
    if (in_brackets) expect_symbol(")");
    if (!take_name("in")) fail(found() + ", expected in");
    // `if` filters the loop here and does not start an inline condition.
    out.expressions.push_back(disjunction());
    if (take_name("if")) out.expressions.push_back(expression());
    if (is_name("recursive")) unsupported("a recursive loop");
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
    out.names.push_back(expect_identifier());
    if (take_symbol(".")) out.text = expect_identifier();
    while (out.text.empty() && take_symbol(",")) out.names.push_back(expect_identifier());
    if (take_symbol("=")) {
      out.expressions.push_back(tuple());
      end_of_block();
      return out;
    }
    if (is_symbol("|")) unsupported("a filtered set block");
    if (!out.text.empty() || out.names.size() != 1) fail(found() + ", expected '='");
    end_of_block();
    out.kind = SKind::set_block;
    out.body = statements({"endset"});
    closing();
    return out;
  }

  Statement macro_block() {
    Statement out = statement(SKind::macro);
    out.names.push_back(expect_identifier());
    expect_symbol("(");
    while (!take_symbol(")")) {
      out.names.push_back(expect_identifier());
      Expression absent;
      absent.literal = Value::undefined(out.names.back());
      out.expressions.push_back(take_symbol("=") ? expression() : std::move(absent));
      if (!is_symbol(")")) expect_symbol(",");
    }
    end_of_block();
    out.body = statements({"endmacro"});
    closing();
    return out;
  }

  Expression node(EKind kind, std::string text = {}) const {
    Expression out;
    out.kind = kind;
    out.line = peek().line;
    out.text = std::move(text);
    return out;
  }
  static Expression with(Expression parent, Expression first) {
    parent.items.push_back(std::move(first));
    return parent;
  }
  static Expression with(Expression parent, Expression first, Expression second) {
    parent.items.push_back(std::move(first));
    parent.items.push_back(std::move(second));
    return parent;
  }

  // Chains become trees as deep as they are long, which evaluation walks recursively.
  void count_link() {
    if (++links_ > kMaxLinks) fail("more than 20000 operators");
  }

  Expression tuple() {
    Expression first = expression();
    if (!is_symbol(",")) return first;
    Expression list = with(node(EKind::list), std::move(first));
    while (take_symbol(",")) list.items.push_back(expression());
    return list;
  }

  Expression expression() {
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

  Expression disjunction() {
    Expression left = conjunction();
    while (is_name("or")) {
      count_link();
      Expression both = node(EKind::binary, take().text);
      left = with(std::move(both), std::move(left), conjunction());
    }
    return left;
  }

  Expression conjunction() {
    Expression left = negation();
    while (is_name("and")) {
      count_link();
      Expression both = node(EKind::binary, take().text);
      left = with(std::move(both), std::move(left), negation());
    }
    return left;
  }

  Expression negation() {
    const Depth depth(*this);
    if (!is_name("not")) return comparison();
    Expression out = node(EKind::unary, take().text);
    return with(std::move(out), negation());
  }

  Expression comparison() {
    Expression left = sum();
    bool has_compared = false;
    for (;;) {
      Expression both = node(EKind::binary);
      if (peek().kind == Kind::symbol && (is_symbol("==") || is_symbol("!=") || is_symbol("<") ||
                                          is_symbol("<=") || is_symbol(">") || is_symbol(">="))) {
        both.text = take().text;
      } else if (take_name("in")) {
        both.text = "in";
      } else if (is_name("not") && peek(1).kind == Kind::name && peek(1).text == "in") {
        take();
        take();
        both.text = "not in";
      } else {
        return left;
      }
      if (std::exchange(has_compared, true)) unsupported("a chain of comparisons");
      left = with(std::move(both), std::move(left), sum());
    }
  }

  template <typename Operand>
  Expression left_associative(std::initializer_list<std::string_view> operators,
                              Operand&& operand) {
    Expression left = operand();
    while (peek().kind == Kind::symbol &&
           std::find(operators.begin(), operators.end(), peek().text) != operators.end()) {
      count_link();
      Expression both = node(EKind::binary, take().text);
      left = with(std::move(both), std::move(left), operand());
    }
    return left;
  }

  Expression sum() {
    return left_associative({"+", "-"}, [&] { return concatenation(); });
  }
  Expression concatenation() {
    return left_associative({"~"}, [&] { return product(); });
  }
  Expression product() {
    return left_associative({"*", "/", "//", "%"}, [&] { return signed_value(true); });
  }

  Expression signed_value(bool with_filters) {
    const Depth depth(*this);
    Expression out = node(EKind::unary);
    if (is_symbol("-") || is_symbol("+")) {
      out.text = take().text;
      out = with(std::move(out), signed_value(false));
    } else {
      out = primary();
    }
    out = postfix(std::move(out));
    if (is_symbol("**")) unsupported("the operator **");
    return with_filters ? filters(std::move(out)) : out;
  }

  Expression primary() {
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
        const char* end = token.text.data() + token.text.size();
        if (std::from_chars(token.text.data(), end, value).ec != std::errc())
          fail("the number " + token.text + ", expected one of 64 bits");
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
          out.kind = EKind::name;
          out.text = token.text;
        }
        return out;
      case Kind::symbol:
        if (token.text == "(") return bracketed(")", true);
        if (token.text == "[") return bracketed("]", false);
        return dictionary();
      default:
        throw template_error(ErrorKind::malformed, context_, token.line,
                             "found the end of a block, expected an expression");
    }
  }

  Expression bracketed(std::string_view close, bool may_be_single) {
    Expression list = node(EKind::list);
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

  Expression dictionary() {
    Expression out = node(EKind::dict);
    while (!take_symbol("}")) {
      out.items.push_back(expression());
      expect_symbol(":");
      out.items.push_back(expression());
      if (!is_symbol("}")) expect_symbol(",");
    }
    return out;
  }

  Expression postfix(Expression value) {
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

  Expression subscript(Expression value) {
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

  void arguments(Expression& call) {
    expect_symbol("(");
    while (!take_symbol(")")) {
      if (is_symbol("*")) unsupported("unpacking of arguments");
      if (peek().kind == Kind::name && peek(1).kind == Kind::symbol && peek(1).text == "=") {
        call.keywords.push_back(take().text);
        take();
        call.values.push_back(expression());
      } else {
        call.items.push_back(expression());
      }
      if (!is_symbol(")")) expect_symbol(",");
    }
  }

  Expression filters(Expression value) {
    for (;;) {
      count_link();
      if (take_symbol("|")) {
        Expression out = with(node(EKind::filter, expect_identifier()), std::move(value));
        if (is_symbol("(")) arguments(out);
        value = std::move(out);
      } else if (is_name("is")) {
        value = test(std::move(value));
      } else {
        return value;
      }
    }
  }

  Expression test(Expression value) {
    take();
    const bool is_negated = take_name("not");
    Expression out = node(EKind::test, peek().text);
    expect_identifier();
    out.items.push_back(std::move(value));
    const bool has_operand =
        peek().kind == Kind::string || peek().kind == Kind::integer ||
        peek().kind == Kind::number || is_symbol("[") || is_symbol("{") ||
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

  const std::vector<TemplateToken>& tokens_;
  const std::string& context_;
  std::size_t at_ = 0;
  int depth_ = 0;
  int links_ = 0;
};

}  // namespace

std::vector<Statement> parse_template(const std::vector<TemplateToken>& tokens,
                                      const std::string& context) {
  return Parser(tokens, context).run();
}

}  // namespace lora::text
