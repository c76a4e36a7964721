#include "text/token_trie.h"

#include <algorithm>
#include <string_view>

#include "text/component.h"
#include "text/tokenizer_file.h"

namespace lora::text {

struct TokenTrie::Entry {
  std::string_view text;
  std::uint32_t id;
};

// Entries that share the path to a node.
struct TokenTrie::Range {
  std::uint32_t node;
  std::uint32_t begin;
  std::uint32_t end;
};

TokenTrie::TokenTrie(const TokenTables& tables, AllocationBudget& budget,
                     const std::string& context) {
  // Besides what is spent on the tokens themselves: lists of this many while the tree is built.
  spend_memory_of_tokenizer(budget, 2 * sizeof(Range) * tables.tokens.size(), context);
  std::vector<Entry> entries;
  entries.reserve(tables.tokens.size());
  for (const TokenTables::Token& token : tables.tokens) {
    if (token.size > kLongestToken)
      throw malformed_tokenizer("token " + std::to_string(token.id) + " has " +
                                    std::to_string(token.size) + " bytes, expected at most " +
                                    std::to_string(kLongestToken),
                                context);
    entries.push_back({tables.spelling(token), static_cast<std::uint32_t>(token.id)});
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.text < b.text; });
  std::size_t count = 1;
  std::string_view previous;
  for (const Entry& entry : entries) {
    const auto shared =
        std::mismatch(previous.begin(), previous.end(), entry.text.begin(), entry.text.end());
    count += static_cast<std::size_t>(entry.text.end() - shared.second);
    previous = entry.text;
  }
  spend_memory_of_tokenizer(budget, sizeof(Node) * count, context);
  nodes_.reserve(count);
  nodes_.emplace_back();
  std::vector<Range> level{{kRoot, 0, static_cast<std::uint32_t>(entries.size())}};
  std::vector<Range> next;
  for (std::size_t depth = 0; !level.empty(); ++depth) {
    next.clear();
    for (const Range& range : level) add_children(range, entries, depth, next);
    level.swap(next);
  }
  root_.fill(kNone);
  for (std::uint32_t i = 0; i < nodes_[kRoot].children; ++i) {
    const std::uint32_t node = nodes_[kRoot].first_child + i;
    root_[nodes_[node].byte] = node;
  }
}

void TokenTrie::add_children(const Range& range, const std::vector<Entry>& entries,
                             std::size_t depth, std::vector<Range>& next) {
  std::uint32_t i = range.begin;
  for (; i < range.end && entries[i].text.size() == depth; ++i)
    nodes_[range.node].token = entries[i].id;
  nodes_[range.node].first_child = static_cast<std::uint32_t>(nodes_.size());
  while (i < range.end) {
    const auto byte = static_cast<unsigned char>(entries[i].text[depth]);
    const std::uint32_t begin = i;
    while (i < range.end && static_cast<unsigned char>(entries[i].text[depth]) == byte) ++i;
    next.push_back({static_cast<std::uint32_t>(nodes_.size()), begin, i});
    nodes_.push_back({0, kNone, 0, byte});
    ++nodes_[range.node].children;
  }
}

}  // namespace lora::text
