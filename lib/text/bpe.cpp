#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <queue>

#include "format/in_quotes.h"
#include "lora/base/error.h"
#include "lora/text/tokenizer.h"
#include "text/byte_alphabet.h"
#include "text/component.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15ULL;
constexpr std::size_t kCacheLines = std::size_t{1} << 15;
// Below this many symbols a scan for the best pair beats a heap.
constexpr std::size_t kShortPiece = 48;

std::uint64_t mixed(std::uint64_t value) {
  value *= kMultiplier;
  return value ^ (value >> 29);
}

std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = text.size() * kMultiplier;
  std::size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data() + i, 8);
    hash = mixed(hash ^ word);
  }
  std::uint64_t tail = 0;
  if (i < text.size()) std::memcpy(&tail, text.data() + i, text.size() - i);
  return mixed(hash ^ tail);
}

}  // namespace

void TokenIndex::reserve(std::size_t count, std::size_t bytes) {
  slots_.assign(std::bit_ceil(std::max<std::size_t>(count + count / 2, 16)), {});
  texts_.reserve(bytes);
}

bool TokenIndex::insert(std::string_view text, std::uint32_t id) {
  if ((count_ + 1) * 4 > slots_.size() * 3) {
    const std::vector<Slot> old = std::exchange(slots_, {});
    slots_.resize(std::max<std::size_t>(16, old.size() * 2));
    for (const Slot& slot : old) {
      if (slot.id == kNone) continue;
      const std::size_t mask = slots_.size() - 1;
      std::size_t i = slot.hash & mask;
      while (slots_[i].id != kNone) i = (i + 1) & mask;
      slots_[i] = slot;
    }
  }
  const auto hash = static_cast<std::uint32_t>(hash_of(text));
  const std::size_t mask = slots_.size() - 1;
  std::size_t i = hash & mask;
  for (; slots_[i].id != kNone; i = (i + 1) & mask) {
    const Slot& slot = slots_[i];
    if (slot.hash == hash && std::string_view(texts_).substr(slot.offset, slot.size) == text)
      return false;
  }
  slots_[i] = {static_cast<std::uint32_t>(texts_.size()), static_cast<std::uint32_t>(text.size()),
               hash, id};
  texts_ += text;
  ++count_;
  return true;
}

std::uint32_t TokenIndex::find(std::string_view text) const {
  if (slots_.empty()) return kNone;
  const auto hash = static_cast<std::uint32_t>(hash_of(text));
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t i = hash & mask; slots_[i].id != kNone; i = (i + 1) & mask) {
    const Slot& slot = slots_[i];
    if (slot.hash == hash && std::string_view(texts_).substr(slot.offset, slot.size) == text)
      return slot.id;
  }
  return kNone;
}

BpeCache::BpeCache() : lines_(kCacheLines) {}

BpeCache::Line& BpeCache::line_of(const std::array<std::uint64_t, 2>& key) {
  const std::uint64_t hash = mixed(mixed(key[0]) ^ key[1]);
  return lines_[(hash >> 17) & (kCacheLines - 1)];
}

Bpe::Bpe(const BpeVocabulary& vocabulary, const std::string& context)
    : fuse_unk_(vocabulary.fuse_unk), ignore_merges_(vocabulary.ignore_merges) {
  const TokenTables& tables = vocabulary.tables;
  std::size_t bytes = 0;
  for (const TokenTables::Token& token : tables.tokens) bytes += token.size;
  by_spelling_.reserve(tables.tokens.size(), bytes);
  if (ignore_merges_) by_bytes_.reserve(tables.tokens.size(), bytes);
  for (const TokenTables::Token& token : tables.tokens) {
    const std::string_view spelling = tables.spelling(token);
    if (token.id < 0 || token.id > kMaxTokenId)
      throw malformed_tokenizer("token " + in_quotes(spelling) + " has id " +
                                    std::to_string(token.id) + ", expected 0 to " +
                                    std::to_string(kMaxTokenId),
                                context);
    if (!by_spelling_.insert(spelling, static_cast<std::uint32_t>(token.id)))
      throw malformed_tokenizer("token " + in_quotes(spelling) + " is in the vocabulary twice",
                                context);
    if (!ignore_merges_) continue;
    if (const auto raw = bytes_of_spelling(spelling))
      by_bytes_.insert(*raw, static_cast<std::uint32_t>(token.id));
  }
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char raw = static_cast<char>(byte);
    byte_ids_[byte] = by_spelling_.find(spelling_of_bytes({&raw, 1}));
  }
  if (!vocabulary.unk_token.empty()) {
    unk_id_ = by_spelling_.find(vocabulary.unk_token);
    if (unk_id_ == TokenIndex::kNone)
      throw malformed_tokenizer(
          "unk_token \"" + vocabulary.unk_token + "\" is not in the vocabulary", context);
  }

  const std::size_t count = tables.merges.size();
  merges_.resize(std::bit_ceil(std::max<std::size_t>(count + count / 2, 16)));
  mask_ = merges_.size() - 1;
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
    insert({std::uint64_t{id_of(tables.left(merge))} << 32 | id_of(tables.right(merge)), rank,
            id_of(tables.result(merge))});
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

void Bpe::initial_symbols(std::string_view piece, std::vector<std::uint32_t>& ids) const {
  ids.clear();
  bool after_unknown = false;
  for (const char c : piece) {
    const std::uint32_t id = byte_ids_[static_cast<unsigned char>(c)];
    if (id != TokenIndex::kNone) {
      ids.push_back(id);
      after_unknown = false;
    } else if (unk_id_ != TokenIndex::kNone) {
      if (!(after_unknown && fuse_unk_)) ids.push_back(unk_id_);
      after_unknown = true;
    }
    // Without an unknown token the reference leaves such a byte out.
  }
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

void Bpe::encode(std::string_view piece, BpeCache& cache, std::vector<std::int64_t>& out) const {
  BpeCache::Line* line = nullptr;
  std::array<std::uint64_t, 2> key{};
  if (piece.size() <= BpeCache::kMaxKey) {
    std::memcpy(key.data(), piece.data(), piece.size());
    key[1] |= static_cast<std::uint64_t>(piece.size() + 1) << 56;
    line = &cache.line_of(key);
    if (line->key == key) {
      for (std::uint32_t i = 0; i < line->count; ++i) out.push_back(line->ids[i]);
      return;
    }
  }

  if (piece.size() > Tokenizer::kMaxWordBytes)
    throw Error(ErrorKind::malformed,
                "cannot tokenize text: the word that starts with " +
                    in_quotes(piece.substr(0, 40)) + " has " + std::to_string(piece.size()) +
                    " bytes, expected at most " + std::to_string(Tokenizer::kMaxWordBytes) +
                    " without a place to cut it");
  std::vector<std::uint32_t> ids;
  const std::uint32_t whole = ignore_merges_ ? by_bytes_.find(piece) : TokenIndex::kNone;
  if (whole != TokenIndex::kNone) {
    ids.push_back(whole);
  } else {
    ids.reserve(piece.size());
    initial_symbols(piece, ids);
    if (ids.size() <= kShortPiece) {
      merge_short(ids);
    } else {
      merge_long(ids);
    }
  }
  out.insert(out.end(), ids.begin(), ids.end());
  if (line != nullptr && ids.size() <= BpeCache::kMaxIds) {
    line->key = key;
    line->count = static_cast<std::uint32_t>(ids.size());
    std::copy(ids.begin(), ids.end(), line->ids.begin());
  }
}

}  // namespace lora::text
