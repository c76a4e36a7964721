// All tokens that a text begins with, in one walk.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "format/allocation_budget.h"
#include "text/token_tables.h"

namespace lora::text {

/// The tree of the spellings of a vocabulary, a byte an edge.
class TokenTrie {
 public:
  static constexpr std::uint32_t kRoot = 0;
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;
  /// A walk is made from every character of a text, and each may go as far as the longest token.
  static constexpr std::size_t kLongestToken = 1024;

  /// Of equal spellings the last counts. Throws Error(malformed) for a token beyond kLongestToken,
  /// and when `budget` does not cover the tree; `context` names the file.
  TokenTrie(const TokenTables& tables, AllocationBudget& budget, const std::string& context);

  /// Where the edge `byte` leads, kNone when there is none.
  std::uint32_t child(std::uint32_t node, unsigned char byte) const {
    if (node == kRoot) return root_[byte];
    const Node& from = nodes_[node];
    for (std::uint32_t i = from.first_child; i < from.first_child + from.children; ++i)
      if (nodes_[i].byte == byte) return i;
    return kNone;
  }

  /// The token that ends here, kNone when none does.
  std::uint32_t token(std::uint32_t node) const { return nodes_[node].token; }

 private:
  struct Node {
    std::uint32_t first_child = 0;
    std::uint32_t token = kNone;
    std::uint16_t children = 0;
    unsigned char byte = 0;
  };
  struct Entry;
  struct Range;
  void add_children(const Range& range, const std::vector<Entry>& entries, std::size_t depth,
                    std::vector<Range>& next);

  std::vector<Node> nodes_;
  std::array<std::uint32_t, 256> root_{};
};

}  // namespace lora::text
