// Added tokens: strings that are cut out of the text before anything else looks at it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lora::text {

struct AddedToken {
  std::int64_t id = 0;
  std::string content;
  bool single_word = false;  ///< only where no word character touches it
  bool lstrip = false;       ///< takes the white space on its left with it
  bool rstrip = false;
  bool normalized = false;  ///< matched on normalized text, in its normalized form
  bool special = false;
};

/// A stretch of text: an added token, or text between them (id < 0).
struct TextSpan {
  std::int64_t id;
  std::size_t begin;
  std::size_t end;
};

/// Leftmost-longest search for a set of added tokens (a trie tried where a first byte fits).
class AddedTokenMatcher {
 public:
  /// `spelling` is what to look for: the content, or its normalized form.
  void add(const AddedToken& token, std::string_view spelling);
  bool empty() const { return tokens_.empty(); }

  /// Cuts `text` into spans, in order. Empty stretches between tokens are left out.
  std::vector<TextSpan> split(std::string_view text) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, std::uint32_t>> children;
    std::int32_t token = -1;  // index into tokens_
  };
  /// Longest token that starts at `begin`; false when none does.
  bool match(std::string_view text, std::size_t begin, std::size_t& end, std::int32_t& token) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_{1};
  std::array<bool, 256> starts_{};
};

}  // namespace lora::text
