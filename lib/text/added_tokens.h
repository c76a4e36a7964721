// Added tokens: strings that are cut out of the text before anything else looks at it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
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

/// Leftmost-longest search for a set of added tokens (among the sorted spellings, where a first
/// byte fits).
class AddedTokenMatcher {
 public:
  /// `spelling` is what to look for: the content, or its normalized form. Of two tokens with the
  /// same spelling the first wins.
  void add(const AddedToken& token, std::string_view spelling);
  /// Call once, after the last add().
  void index();
  bool empty() const { return entries_.empty(); }

  /// Cuts `text` into spans and hands them over in order. Empty stretches between tokens are left
  /// out.
  void split(std::string_view text, const std::function<void(const TextSpan&)>& receive) const;

 private:
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;
  struct Entry {
    std::string spelling;
    AddedToken token;
    std::uint32_t parent = kNone;  // the longest other spelling that this one starts with
  };
  /// Longest token that starts at `begin`; null when none does.
  const Entry* match(std::string_view text, std::size_t begin) const;

  std::vector<Entry> entries_;  // by spelling
  std::array<bool, 256> starts_{};
};

}  // namespace lora::text
