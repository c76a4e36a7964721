#include "text/chat_cursor.h"

namespace lora::text {

const TemplateToken& TokenCursor::take() {
  const TemplateToken& token = peek();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool TokenCursor::take_symbol(std::string_view symbol) {
  if (!is_symbol(symbol)) return false;
  take();
  return true;
}

bool TokenCursor::take_name(std::string_view name) {
  if (!is_name(name)) return false;
  take();
  return true;
}

void TokenCursor::expect_symbol(std::string_view symbol) {
  if (!take_symbol(symbol)) fail(found() + ", expected '" + std::string(symbol) + "'");
}

std::string TokenCursor::expect_identifier() {
  if (peek().kind != Kind::name) fail(found() + ", expected a name");
  return take().text;
}

void TokenCursor::expect(Kind kind, std::string_view what) {
  if (peek().kind != kind) fail(found() + ", expected " + std::string(what));
  take();
}

std::string TokenCursor::found() const {
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

void TokenCursor::count_link() {
  if (++links_ > kMaxLinks) fail("more than 20000 operators");
}

void TokenCursor::fail(const std::string& what) const {
  throw template_error(ErrorKind::malformed, context_, peek().line, "found " + what);
}

void TokenCursor::unsupported(const std::string& what) const {
  throw template_error(ErrorKind::unsupported, context_, peek().line, what + " is not supported");
}

}  // namespace lora::text
