#include "text/unigram.h"

#include <algorithm>
#include <limits>

#include "format/in_quotes.h"
#include "lora/base/error.h"
#include "text/component.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

constexpr double kUnknownPenalty = 10;

// Of equal spellings the last has the id, as in the reference.
TokenIndex index_of_last(const TokenTables& tables) {
  TokenIndex index;
  index.reserve(tables.tokens.size(), tables.text.size());
  for (auto token = tables.tokens.rbegin(); token != tables.tokens.rend(); ++token)
    index.insert(tables.spelling(*token), static_cast<std::uint32_t>(token->id));
  return index;
}

}  // namespace

Unigram::Unigram(const TokenTables& tables, std::optional<std::size_t> unk_id, bool byte_fallback,
                 AllocationBudget& budget, const std::string& context)
    : by_spelling_(index_of_last(tables)),
      trie_(tables, budget, context),
      scores_(tables.scores.begin(), tables.scores.end()) {
  double lowest = std::numeric_limits<double>::infinity();
  for (const double score : scores_) lowest = std::min(lowest, score);
  unk_score_ = lowest - kUnknownPenalty;
  if (unk_id) {
    if (*unk_id >= scores_.size())
      throw malformed_tokenizer("unk_id is " + std::to_string(*unk_id) + " of " +
                                    std::to_string(scores_.size()) + " tokens",
                                context);
    unk_id_ = static_cast<std::uint32_t>(*unk_id);
  }
  if (byte_fallback) fallback_ = byte_tokens(by_spelling_);
}

std::vector<Unigram::Place> Unigram::best_places(std::string_view piece) const {
  std::vector<Place> places(piece.size() + 1);
  // Of two ways with the same score the one that is found first stays: the earlier start.
  const auto reach = [&](std::size_t start, std::size_t end, double score, std::uint32_t token) {
    Place& place = places[end];
    const double sum = score + places[start].score;
    if (place.start != kUnreached && !(sum > place.score)) return;
    place = {sum, static_cast<std::uint32_t>(start), token};
  };
  for (std::size_t start = 0; start < piece.size();) {
    const std::size_t length = utf8_length(static_cast<unsigned char>(piece[start]));
    bool covers_character = false;
    std::uint32_t node = TokenTrie::kRoot;
    for (std::size_t i = start; i < piece.size();) {
      node = trie_.child(node, static_cast<unsigned char>(piece[i++]));
      if (node == TokenTrie::kNone) break;
      const std::uint32_t token = trie_.token(node);
      if (token == TokenTrie::kNone) continue;
      reach(start, i, scores_[token], token);
      covers_character = covers_character || i == start + length;
    }
    if (!covers_character) reach(start, start + length, unk_score_, unk_id_);
    start += length;
  }
  return places;
}

void Unigram::append_unknown(std::string_view text, std::vector<std::uint32_t>& out) const {
  if (const std::uint32_t id = by_spelling_.find(text); id != TokenIndex::kNone) {
    out.push_back(id);
    return;
  }
  const auto id_of = [&](char byte) { return fallback_[static_cast<unsigned char>(byte)]; };
  if (!fallback_.empty() && std::all_of(text.begin(), text.end(), [&](char byte) {
        return id_of(byte) != TokenIndex::kNone;
      })) {
    for (const char byte : text) out.push_back(id_of(byte));
    return;
  }
  if (unk_id_ == TokenIndex::kNone)
    throw Error(ErrorKind::malformed, "cannot tokenize text: no token covers " +
                                          in_quotes(text.substr(0, 40)) +
                                          ", and the tokenizer has no unknown token");
  out.push_back(unk_id_);
}

void Unigram::encode(std::string_view piece, std::vector<std::uint32_t>& out) const {
  require_short_piece(piece);
  const std::vector<Place> places = best_places(piece);
  std::vector<std::uint32_t> ends;  // from the last token to the first
  for (std::size_t end = piece.size(); end > 0; end = places[end].start)
    ends.push_back(static_cast<std::uint32_t>(end));
  std::reverse(ends.begin(), ends.end());
  // Unknown characters in a row are one; a token that is the unknown one joins them.
  std::size_t unknown_begin = piece.size();
  for (const std::uint32_t end : ends) {
    const Place& place = places[end];
    if (place.token == unk_id_) {
      unknown_begin = std::min<std::size_t>(unknown_begin, place.start);
      continue;
    }
    if (unknown_begin < place.start)
      append_unknown(piece.substr(unknown_begin, place.start - unknown_begin), out);
    unknown_begin = piece.size();
    out.push_back(place.token);
  }
  if (unknown_begin < piece.size()) append_unknown(piece.substr(unknown_begin), out);
}

}  // namespace lora::text
