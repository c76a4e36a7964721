#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <queue>
#include <utility>

#include "format/in_quotes.h"
#include "lora/base/error.h"
#include "text/byte_alphabet.h"
#include "text/component.h"
#include "text/mixed_hash.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

// Below this many symbols a scan for the best pair beats a heap.
constexpr std::size_t kShortPiece = 48;

}  // namespace

Bpe::Bpe(const TokenTables& tables, BpeOptions options, const std::string& context)
    : options_(std::move(options)), by_spelling_(index_of(tables, context)) {
  if (options_.pieces_are_bytes && options_.ignore_merges) {
    by_bytes_.reserve(tables.tokens.size(), tables.text.size());
    for (const TokenTables::Token& token : tables.tokens)
      if (const auto raw = bytes_of_spelling(tables.spelling(token)))
        by_bytes_.insert(*raw, static_cast<std::uint32_t>(token.id));
  }
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char raw = static_cast<char>(byte);
    if (options_.pieces_are_bytes) {
      byte_ids_[byte] = by_spelling_.find(spelling_of_bytes({&raw, 1}));
    } else {
      byte_ids_[byte] = byte < 0x80 ? by_spelling_.find({&raw, 1}) : TokenIndex::kNone;
    }
  }
  if (options_.byte_fallback) fallback_ = byte_tokens(by_spelling_);
  if (!options_.unk_token.empty()) {
    unk_id_ = by_spelling_.find(options_.unk_token);
    if (unk_id_ == TokenIndex::kNone)
      throw malformed_tokenizer("unk_token \"" + options_.unk_token + "\" is not in the vocabulary",
                                context);
  }
  read_merges(tables, context);
}

void Bpe::read_merges(const TokenTables& tables, const std::string& context) {
  const std::size_t count = tables.merges.size();
  merges_.resize(std::bit_ceil(std::max<std::size_t>(count + count / 2, 16)));
  mask_ = merges_.size() - 1;
  const std::size_t dropped = options_.prefix.size();
  std::string shortened;
  std::uint32_t rank = 0;
  for (const TokenTables::Merge& merge : tables.merges) {
    const auto id_of = [&](std::string_view spelling) {
      const std::uint32_t id = by_spelling_.find(spelling);
      if (id == TokenIndex::kNone)
        throw malformed_tokenizer("merge " + std::to_string(rank) + " (" +
                                      in_quotes(tables.left(merge)) + " + " +
                                      in_quotes(tables.right(merge)) + ") needs the token " +
                                      in_quotes(spelling) + ", which is not in the vocabulary",
                                  context);
      return id;
    };
    const std::uint32_t left = id_of(tables.left(merge));
    const std::uint32_t right = id_of(tables.right(merge));
    std::string_view result = tables.result(merge);
    if (dropped > 0) {
      // The right part loses as many bytes as the prefix has, whatever they are.
      if (merge.right < dropped)
        throw malformed_tokenizer("merge " + std::to_string(rank) + " has the right part " +
                                      in_quotes(tables.right(merge)) +
                                      ", expected one that starts with " +
                                      in_quotes(options_.prefix),
                                  context);
      shortened.assign(tables.left(merge)).append(tables.right(merge).substr(dropped));
      result = shortened;
    }
    insert({std::uint64_t{left} << 32 | right, rank, id_of(result)});
    ++rank;
  }
}

void Bpe::insert(const Merge& merge) {
  std::uint64_t i = mixed(merge.pair) & mask_;
  while (merges_[i].pair != ~0ULL && merges_[i].pair != merge.pair) i = (i + 1) & mask_;
  merges_[i] = merge;  // the reference keeps the last of two equal merges
}

inline const Bpe::Merge* Bpe::merge_of(std::uint32_t left, std::uint32_t right) const {
  const std::uint64_t pair = std::uint64_t{left} << 32 | right;
  for (std::uint64_t i = mixed(pair) & mask_;; i = (i + 1) & mask_) {
    if (merges_[i].pair == pair) return &merges_[i];
    if (merges_[i].pair == ~0ULL) return nullptr;
  }
}

void Bpe::symbols_of_bytes(std::string_view piece, std::vector<std::uint32_t>& ids) const {
  bool after_unknown = false;
  for (const char c : piece) {
    const std::uint32_t id = byte_ids_[static_cast<unsigned char>(c)];
    if (id != TokenIndex::kNone) {
      ids.push_back(id);
      after_unknown = false;
    } else if (unk_id_ != TokenIndex::kNone) {
      if (!(after_unknown && options_.fuse_unk)) ids.push_back(unk_id_);
      after_unknown = true;
    }
    // Without an unknown token the reference leaves such a byte out.
  }
}

std::uint32_t Bpe::symbol_of_character(std::string_view character,
                                       std::string_view spelling) const {
  if (spelling.empty() && character.size() == 1)
    return byte_ids_[static_cast<unsigned char>(character.front())];
  return by_spelling_.find(spelling.empty() ? character : spelling);
}

bool Bpe::append_fallback(std::string_view spelling, std::vector<std::uint32_t>& ids) const {
  if (fallback_.empty()) return false;
  const auto id_of = [&](char byte) { return fallback_[static_cast<unsigned char>(byte)]; };
  if (!std::all_of(spelling.begin(), spelling.end(),
                   [&](char byte) { return id_of(byte) != TokenIndex::kNone; }))
    return false;
  for (const char byte : spelling) ids.push_back(id_of(byte));
  return true;
}

void Bpe::symbols_of_characters(std::string_view piece, std::vector<std::uint32_t>& ids) const {
  // An unknown token waits for a known character after it, as in the reference; bytes of characters
  // without a token overtake it.
  bool unknown_waits = false;
  std::string spelling;
  std::size_t length = 0;
  for (std::size_t i = 0; i < piece.size(); i += length) {
    length = utf8_length(static_cast<unsigned char>(piece[i]));
    const std::string_view character = piece.substr(i, length);
    const bool is_last = i + length == piece.size();
    spelling.clear();
    if ((i > 0 && !options_.prefix.empty()) || (is_last && !options_.suffix.empty())) {
      if (i > 0) spelling = options_.prefix;
      spelling += character;
      if (is_last) spelling += options_.suffix;
    }
    const std::uint32_t id = symbol_of_character(character, spelling);
    if (id != TokenIndex::kNone) {
      if (unknown_waits) ids.push_back(unk_id_);
      unknown_waits = false;
      ids.push_back(id);
    } else if (!append_fallback(spelling.empty() ? character : spelling, ids) &&
               unk_id_ != TokenIndex::kNone) {
      if (unknown_waits && !options_.fuse_unk) ids.push_back(unk_id_);
      unknown_waits = true;
    }
  }
  if (unknown_waits) ids.push_back(unk_id_);
}

void Bpe::merge_short(std::vector<std::uint32_t>& ids) const {
  constexpr std::uint32_t kNoRank = std::numeric_limits<std::uint32_t>::max();
  std::array<std::uint32_t, kShortPiece> ranks;
  std::array<std::uint32_t, kShortPiece> results;
  std::size_t count = ids.size();
  const auto look_up = [&](std::size_t i) {
    const Merge* merge = merge_of(ids[i], ids[i + 1]);
    ranks[i] = merge ? merge->rank : kNoRank;
    results[i] = merge ? merge->result : 0;
  };
  for (std::size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i)
      if (ranks[i] < ranks[best]) best = i;
    if (ranks[best] == kNoRank) break;
    ids[best] = results[best];
    for (std::size_t i = best + 1; i + 1 < count; ++i) {
      ids[i] = ids[i + 1];
      if (i + 2 < count) {
        ranks[i] = ranks[i + 1];
        results[i] = results[i + 1];
      }
    }
    --count;
    if (best > 0) look_up(best - 1);
    if (best + 1 < count) look_up(best);
  }
  ids.resize(count);
}

void Bpe::merge_long(std::vector<std::uint32_t>& ids) const {
  struct Candidate {
    std::uint32_t rank;
    std::int32_t left;
    std::uint32_t left_id;
    std::uint32_t right_id;
    std::uint32_t result;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  std::vector<Symbol> symbols(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i)
    symbols[i] = {ids[i], static_cast<std::int32_t>(i) - 1,
                  i + 1 < ids.size() ? static_cast<std::int32_t>(i) + 1 : -1, true};
  const auto symbol = [&](std::int32_t i) -> Symbol& {
    return symbols[static_cast<std::size_t>(i)];
  };
  const auto propose = [&](std::int32_t left) {
    if (left < 0 || symbol(left).next < 0) return;
    const std::uint32_t left_id = symbol(left).id;
    const std::uint32_t right_id = symbol(symbol(left).next).id;
    if (const Merge* merge = merge_of(left_id, right_id))
      queue.push({merge->rank, left, left_id, right_id, merge->result});
  };
  for (std::size_t i = 0; i + 1 < symbols.size(); ++i) propose(static_cast<std::int32_t>(i));
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbol(best.left);
    // Candidates whose symbols have changed since they were proposed are stale.
    if (!left.is_alive || left.id != best.left_id || left.next < 0) continue;
    Symbol& right = symbol(left.next);
    if (right.id != best.right_id) continue;
    left.id = best.result;
    right.is_alive = false;
    left.next = right.next;
    if (left.next >= 0) symbol(left.next).previous = best.left;
    propose(left.previous);
    propose(best.left);
  }
  ids.clear();
  for (std::int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = symbol(i).next)
    ids.push_back(symbol(i).id);
}

void Bpe::encode(std::string_view piece, std::vector<std::uint32_t>& out) const {
  require_short_piece(piece);
  if (options_.ignore_merges) {
    const std::uint32_t whole =
        options_.pieces_are_bytes ? by_bytes_.find(piece) : by_spelling_.find(piece);
    if (whole != TokenIndex::kNone) {
      out.push_back(whole);
      return;
    }
  }
  out.reserve(piece.size());
  if (options_.pieces_are_bytes) {
    symbols_of_bytes(piece, out);
  } else {
    symbols_of_characters(piece, out);
  }
  if (out.size() <= kShortPiece) {
    merge_short(out);
  } else {
    merge_long(out);
  }
}

}  // namespace lora::text
