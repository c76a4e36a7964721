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
  entries_.push_back({std::string(spelling), token, kNone});
  starts_[static_cast<unsigned char>(spelling.front())] = true;
}

void AddedTokenMatcher::index() {
  std::stable_sort(entries_.begin(), entries_.end(),
                   [](const Entry& a, const Entry& b) { return a.spelling < b.spelling; });
  entries_.erase(
      std::unique(entries_.begin(), entries_.end(),
                  [](const Entry& a, const Entry& b) { return a.spelling == b.spelling; }),
      entries_.end());
  std::vector<std::uint32_t> open;  // spellings that begin each other
  for (std::uint32_t i = 0; i < entries_.size(); ++i) {
    while (!open.empty() && !entries_[i].spelling.starts_with(entries_[open.back()].spelling))
      open.pop_back();
    if (!open.empty()) entries_[i].parent = open.back();
    open.push_back(i);
  }
}

// Every spelling that the text begins with also begins the last one that does not sort after it.
const AddedTokenMatcher::Entry* AddedTokenMatcher::match(std::string_view text,
                                                         std::size_t begin) const {
  const std::string_view rest = text.substr(begin);
  const auto after =
      std::upper_bound(entries_.begin(), entries_.end(), rest,
                       [](std::string_view a, const Entry& b) { return a < b.spelling; });
  if (after == entries_.begin()) return nullptr;
  const Entry* entry = &*std::prev(after);
  const std::string_view spelling = entry->spelling;
  const auto common = static_cast<std::size_t>(
      std::mismatch(spelling.begin(), spelling.end(), rest.begin(), rest.end()).first -
      spelling.begin());
  while (entry->spelling.size() > common) {
    if (entry->parent == kNone) return nullptr;
    entry = &entries_[entry->parent];
  }
  return entry;
}

void AddedTokenMatcher::split(std::string_view text,
                              const std::function<void(const TextSpan&)>& receive) const {
  std::size_t covered = 0;
  std::size_t i = 0;
  while (i < text.size()) {
    const Entry* found = starts_[static_cast<unsigned char>(text[i])] ? match(text, i) : nullptr;
    if (found == nullptr) {
      ++i;
      continue;
    }
    std::size_t begin = i;
    std::size_t end = begin + found->spelling.size();
    i = end;  // a match that is turned down below still uses up its text
    const AddedToken& token = found->token;
    if (token.single_word) {
      const bool free_before = begin == 0 || !is_word_at(text, utf8_previous(text, begin));
      const bool free_after = end == text.size() || !is_word_at(text, end);
      if (!free_before || !free_after) continue;
    }
    if (token.lstrip) begin = std::max(white_space_before(text, begin), covered);
    if (token.rstrip) end = white_space_after(text, end);
    if (covered < begin) receive({-1, covered, begin});
    receive({token.id, begin, end});
    covered = end;
  }
  if (covered < text.size()) receive({-1, covered, text.size()});
}

}  // namespace lora::text
