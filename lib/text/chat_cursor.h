// Reading the tokens of a chat template one after another, with the errors and limits of its
// parser.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat_lexer.h"

namespace lora::text {

class TokenCursor {
 protected:
  using Kind = TemplateToken::Kind;

  TokenCursor(const std::vector<TemplateToken>& tokens, const std::string& context)
      : tokens_(tokens), context_(context) {}

  // Counts nesting, so that a hostile template cannot exhaust the stack.
  class Depth {
   public:
    explicit Depth(TokenCursor& cursor) : cursor_(cursor) {
      if (++cursor_.depth_ > kMaxDepth) cursor_.fail("more than 100 levels of nesting");
    }
    ~Depth() { --cursor_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    TokenCursor& cursor_;
  };

  const TemplateToken& peek(std::size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  const TemplateToken& take();
  bool is_symbol(std::string_view symbol) const {
    return peek().kind == Kind::symbol && peek().text == symbol;
  }
  bool is_name(std::string_view name) const {
    return peek().kind == Kind::name && peek().text == name;
  }
  bool take_symbol(std::string_view symbol);
  bool take_name(std::string_view name);
  void expect_symbol(std::string_view symbol);
  std::string expect_identifier();
  void expect(Kind kind, std::string_view what);
  std::string found() const;
  // Chains become trees as deep as they are long, which evaluation walks recursively.
  void count_link();
  std::string peek_block_name() const { return peek(1).text; }
  [[noreturn]] void fail(const std::string& what) const;
  [[noreturn]] void unsupported(const std::string& what) const;

  const std::string& context() const { return context_; }

 private:
  static constexpr int kMaxDepth = 100;
  static constexpr int kMaxLinks = 20000;

  const std::vector<TemplateToken>& tokens_;
  const std::string& context_;
  std::size_t at_ = 0;
  int depth_ = 0;
  int links_ = 0;
};

}  // namespace lora::text
