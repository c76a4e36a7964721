// Template source to tokens, white space control included.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lora/base/error.h"

namespace lora::text {

struct TemplateToken {
  enum class Kind {
    text,         ///< literal output
    print_begin,  ///< {{
    print_end,
    block_begin,  ///< {%
    block_end,
    name,
    integer,
    number,
    string,  ///< `text` is the value, escapes resolved
    symbol,  ///< operator or bracket
    end,
  };
  Kind kind = Kind::end;
  std::string text;
  int line = 1;
};

/// The tokens of a template as Jinja with trim_blocks and lstrip_blocks sees it; the last is `end`.
/// Throws Error(malformed).
std::vector<TemplateToken> lex_template(std::string_view source, const std::string& context);

/// "cannot use chat template CONTEXT, line N: what".
Error template_error(ErrorKind kind, const std::string& context, int line, const std::string& what);

}  // namespace lora::text
