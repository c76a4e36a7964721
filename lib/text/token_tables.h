// The two large tables of a tokenizer.json, packed: a file spends as little as six bytes on a
// merge, and two strings on the heap would take twenty times that.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

namespace lora::text {

struct TokenTables {
  struct Token {
    std::uint32_t offset;  ///< into `text`
    std::uint32_t size;
    std::int64_t id;
  };
  struct Merge {
    std::uint32_t offset;  ///< of the left part; the right one follows it
    std::uint32_t left;    ///< sizes
    std::uint32_t right;
  };

  std::string text;           ///< all spellings, as in the file
  std::deque<Token> tokens;   ///< a deque never holds its old items and its new ones at once
  std::deque<Merge> merges;   ///< by rank, best first
  std::deque<double> scores;  ///< of Unigram, by id

  std::string_view spelling(const Token& token) const {
    return std::string_view(text).substr(token.offset, token.size);
  }
  std::string_view left(const Merge& merge) const {
    return std::string_view(text).substr(merge.offset, merge.left);
  }
  std::string_view right(const Merge& merge) const {
    return std::string_view(text).substr(merge.offset + merge.left, merge.right);
  }
  std::string_view result(const Merge& merge) const {
    return std::string_view(text).substr(merge.offset, merge.left + merge.right);
  }
};

}  // namespace lora::text
