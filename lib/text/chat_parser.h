// The syntax tree of a chat template.
#pragma once

#include <string>
#include <vector>

#include "text/chat_lexer.h"
#include "text/chat_value.h"

namespace lora::text {

struct Expression {
  enum class Kind {
    literal,
    name,       ///< `text`
    list,       ///< items
    dict,       ///< items: key, value, key, value, ...
    attribute,  ///< items[0].text
    index,      ///< items[0][items[1]]
    slice,      ///< items[0][items[1]:items[2]:items[3]]; a left-out bound is a none literal
    call,       ///< items[0](items[1..], keywords[i]=values[i])
    filter,     ///< items[0] | text(items[1..], keywords[i]=values[i])
    test,       ///< items[0] is text(items[1..])
    binary,     ///< `text` is the operator: + - * / // % ~ ** == != < <= > >= in "not in" and or
    unary,      ///< `text`: not, -, +
    choice,     ///< items[0] if items[1] else items[2]
  };
  Kind kind = Kind::literal;
  int line = 1;
  std::string text;
  Value literal;
  std::vector<Expression> items;
  std::vector<std::string> keywords;  ///< names of the arguments given by name
  std::vector<Expression> values;     ///< one for each of `keywords`
};

struct Statement {
  enum class Kind {
    text,        ///< `text`
    print,       ///< expressions[0]
    loop,        ///< names in expressions[0] [if expressions[1]]: body, else: other
    branch,      ///< if expressions[0]: body, else: other
    set,         ///< names = expressions[0], or names[0].text = expressions[0]
    set_block,   ///< names[0] = rendering of body
    macro,       ///< names[0](names[1..]); expressions: defaults, absent ones undefined literals
    generation,  ///< body
    leave,       ///< break
    next,        ///< continue
  };
  Kind kind = Kind::text;
  int line = 1;
  std::string text;
  std::vector<std::string> names;
  std::vector<Expression> expressions;
  std::vector<Statement> body;
  std::vector<Statement> other;
};

/// Throws Error(malformed | unsupported) with the line.
std::vector<Statement> parse_template(const std::vector<TemplateToken>& tokens,
                                      const std::string& context);

}  // namespace lora::text
