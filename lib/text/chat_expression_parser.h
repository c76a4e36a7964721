// The expressions of a chat template, by recursive descent in the order of Jinja's operators.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "text/chat_cursor.h"
#include "text/chat_parser.h"

namespace lora::text {

class ExpressionParser : protected TokenCursor {
 protected:
  using EKind = Expression::Kind;
  using TokenCursor::TokenCursor;

  Expression node(EKind kind, std::string text = {}) const;
  static Expression with(Expression parent, Expression first);
  static Expression with(Expression parent, Expression first, Expression second);
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
  Expression expression();
  Expression disjunction();
  Expression conjunction();
  Expression negation();
  Expression comparison();
  std::optional<std::string> comparison_operator();
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
  Expression sum();
  Expression concatenation();
  Expression product();
  Expression signed_value(bool with_filters);
  Expression primary();
  Expression bracketed(std::string_view close, bool may_be_single);
  Expression dictionary();
  Expression postfix(Expression value);
  Expression subscript(Expression value);
  void arguments(Expression& call);
  // One or more filters, in front of which there is no '|'.
  Expression filter_chain(Expression value);
  Expression filters(Expression value);
  Expression test(Expression value);

  bool mentions_varargs_ = false;  // in the macro that is being read
  bool mentions_kwargs_ = false;
};

}  // namespace lora::text
