#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode_ranges.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

bool is_word_at(std::string_view text, std::size_t position) {
  std::size_t length = 0;
  return contains(word_ranges(), utf8_at(text, position, length));
}

std::size_t white_space_before(std::string_view text, std::size_t end) {
  while (end > 0) {
    const std::size_t previous = utf8_previous(text, end);
    std::size_t length = 0;
    if (!is_white_space(utf8_at(text, previous, length))) break;
    end = previous;
  }
  return end;
}

std::size_t white_space_after(std::string_view text, std::size_t begin) {
  std::size_t length = 0;
  while (begin < text.size() && is_white_space(utf8_at(text, begin, length))) begin += length;
  return begin;
}

}  // namespace

void AddedTokenMatcher::add(const AddedToken& token, std::string_view spelling) {
  if (spelling.empty()) return;
  std::uint32_t node = 0;
  for (const char c : spelling) {
    const auto byte = static_cast<unsigned char>(c);
    auto& children = nodes_[node].children;
    const auto child = std::find_if(children.begin(), children.end(),
                                    [&](const auto& entry) { return entry.first == byte; });
    if (child != children.end()) {
      node = child->second;
    } else {
      const auto created = static_cast<std::uint32_t>(nodes_.size());
      children.emplace_back(byte, created);
      nodes_.emplace_back();
      node = created;
    }
  }
  if (nodes_[node].token >= 0) return;  // two tokens may normalize to the same text: the first wins
  nodes_[node].token = static_cast<std::int32_t>(tokens_.size());
  tokens_.push_back(token);
  starts_[static_cast<unsigned char>(spelling.front())] = true;
}

bool AddedTokenMatcher::match(std::string_view text, std::size_t begin, std::size_t& end,
                              std::int32_t& token) const {
  std::uint32_t node = 0;
  token = -1;
  for (std::size_t i = begin; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto& children = nodes_[node].children;
    const auto child = std::find_if(children.begin(), children.end(),
                                    [&](const auto& entry) { return entry.first == byte; });
    if (child == children.end()) break;
    node = child->second;
    if (nodes_[node].token >= 0) {
      token = nodes_[node].token;
      end = i + 1;
    }
  }
  return token >= 0;
}

std::vector<TextSpan> AddedTokenMatcher::split(std::string_view text) const {
  std::vector<TextSpan> spans;
  std::size_t covered = 0;
  std::size_t i = 0;
  while (i < text.size()) {
    std::size_t end = 0;
    std::int32_t found = -1;
    if (!starts_[static_cast<unsigned char>(text[i])] || !match(text, i, end, found)) {
      ++i;
      continue;
    }
    std::size_t begin = i;
    i = end;  // a match that is turned down below still uses up its text
    const AddedToken& token = tokens_[static_cast<std::size_t>(found)];
    if (token.single_word) {
      const bool free_before = begin == 0 || !is_word_at(text, utf8_previous(text, begin));
      const bool free_after = end == text.size() || !is_word_at(text, end);
      if (!free_before || !free_after) continue;
    }
    if (token.lstrip) begin = std::max(white_space_before(text, begin), covered);
    if (token.rstrip) end = white_space_after(text, end);
    if (covered < begin) spans.push_back({-1, covered, begin});
    spans.push_back({token.id, begin, end});
    covered = end;
  }
  if (covered < text.size()) spans.push_back({-1, covered, text.size()});
  return spans;
}

}  // namespace lora::text
