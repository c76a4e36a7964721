#include "text/chat_parser.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <initializer_list>
#include <iterator>
#include <optional>

namespace lora::text {
namespace {

using Kind = TemplateToken::Kind;
using EKind = Expression::Kind;
using SKind = Statement::Kind;

constexpr int kMaxDepth = 100;
constexpr int kMaxLinks = 20000;

bool is_literal(std::string_view name) {
  for (const std::string_view literal : {"true", "True", "false", "False", "none", "None"})
    if (name == literal) return true;
  return false;
}

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
    return tuple_of([&] { return expression(); });
  }

  template <typename Item>
  Expression tuple_of(Item&& item) {
    Expression first = item();
    if (!is_symbol(",")) return first;
    Expression all = with(node(EKind::tuple), std::move(first));
    while (take_symbol(",")) {
      if (peek().kind == Kind::block_end || peek().kind == Kind::print_end) break;
      all.items.push_back(item());
    }
    return all;
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

  std::optional<std::string> comparison_operator() {
    for (const std::string_view op : {"==", "!=", "<", "<=", ">", ">="})
      if (is_symbol(op)) return take().text;
    if (take_name("in")) return "in";
    if (!is_name("not") || peek(1).kind != Kind::name || peek(1).text != "in") return std::nullopt;
    take();
    take();
    return "not in";
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
    return left_associative({"*", "/", "//", "%"}, [&] {
      return left_associative({"**"}, [&] { return signed_value(true); });
    });
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
        throw template_error(ErrorKind::malformed, context_, token.line,
                             "found the end of a block, expected an expression");
    }
  }

  Expression bracketed(std::string_view close, bool may_be_single) {
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

  // One or more filters, in front of which there is no '|'.
  Expression filter_chain(Expression value) {
    do {
      count_link();
      Expression out = with(node(EKind::filter, expect_identifier()), std::move(value));
      if (is_symbol("(")) arguments(out);
      value = std::move(out);
    } while (take_symbol("|"));
    return value;
  }

  Expression filters(Expression value) {
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

  Expression test(Expression value) {
    take();
    const bool is_negated = take_name("not");
    Expression out = node(EKind::test);
    out.text = expect_identifier();
    while (take_symbol(".")) out.text += "." + expect_identifier();
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
  bool mentions_varargs_ = false;  // in the macro that is being read
  bool mentions_kwargs_ = false;
};

}  // namespace

std::vector<Statement> parse_template(const std::vector<TemplateToken>& tokens,
                                      const std::string& context) {
  return Parser(tokens, context).run();
}

}  // namespace lora::text
