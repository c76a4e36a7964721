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
    tuple,      ///< items
    dict,       ///< items: key, value, key, value, ...
    attribute,  ///< items[0].text
    index,      ///< items[0][items[1]]
    slice,      ///< items[0][items[1]:items[2]:items[3]]; a left-out bound is a none literal
    call,       ///< items[0](items[1..], keywords[i]=values[i])
    filter,     ///< items[0] | text(items[1..], keywords[i]=values[i])
    test,       ///< items[0] is text(items[1..])
    binary,     ///< `text` is the operator: + - * / // % ~ ** == != < <= > >= in "not in" and or
    chain,      ///< items[i] keywords[i] items[i + 1] for each i: comparisons that must all hold
    unpacked,   ///< an argument `*items[0]`
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
    loop,        ///< targets[0] in expressions[0] [if expressions[1]]: body, else: other
    branch,      ///< if expressions[0]: body, else: other
    set,         ///< targets[0] = expressions[0]
    set_block,   ///< targets[0] = expressions[0] of the rendering of body
    filtered,    ///< expressions[0] of the rendering of body
    with,        ///< targets[i] = expressions[i] in body alone
    macro,       ///< names[0](names[1..]); expressions: defaults, absent ones undefined literals
    call,        ///< expressions[0] with body as caller(names[1..]); other expressions: defaults
    generation,  ///< body
    leave,       ///< break
    next,        ///< continue
  };
  Kind kind = Kind::text;
  int line = 1;
  std::string text;
  std::vector<std::string> names;
  std::vector<Expression> targets;  ///< a name, a member of one, or a tuple of targets
  std::vector<Expression> expressions;
  std::vector<Statement> body;
  std::vector<Statement> other;
  bool is_recursive = false;   ///< a loop whose body may call loop()
  bool takes_varargs = false;  ///< macros whose body mentions them
  bool takes_kwargs = false;
};

/// The name of the rendering in the expressions of set_block and filtered; no template can have it.
inline constexpr const char* kCaptured = "";

/// Throws Error(malformed | unsupported) with the line.
std::vector<Statement> parse_template(const std::vector<TemplateToken>& tokens,
                                      const std::string& context);

}  // namespace lora::text
