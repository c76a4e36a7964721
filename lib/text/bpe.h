// Byte pair encoding of one piece of text.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/token_tables.h"

namespace lora::text {

/// Tables are indexed by id, so a file may not name ids far beyond any vocabulary in use.
inline constexpr std::int64_t kMaxTokenId = (std::int64_t{1} << 24) - 1;

struct BpeVocabulary {
  TokenTables tables;
  std::string unk_token;  ///< empty: none
  bool fuse_unk = false;
  bool ignore_merges = false;  ///< a piece that is a token is that token
};

/// Finds a token by its bytes or spelling: open addressing over one text buffer.
class TokenIndex {
 public:
  void reserve(std::size_t count, std::size_t bytes);
  /// False when the text is already there.
  bool insert(std::string_view text, std::uint32_t id);
  /// kNone when absent.
  std::uint32_t find(std::string_view text) const;
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;

 private:
  struct Slot {
    std::uint32_t offset = 0;
    std::uint32_t size = 0;
    std::uint32_t hash = 0;
    std::uint32_t id = kNone;
  };
  std::vector<Slot> slots_;
  std::string texts_;
  std::size_t count_ = 0;
};

/// Pieces seen before and their tokens. Bounded: a new piece takes the place of an old one.
class BpeCache {
 public:
  BpeCache();

  static constexpr std::size_t kMaxKey = 15;
  static constexpr std::size_t kMaxIds = 3;
  /// Short pieces fit in a line; the last byte of `key` holds the length plus one, so that an empty
  /// line equals no piece.
  struct Line {
    std::array<std::uint64_t, 2> key{};
    std::uint32_t count = 0;
    std::array<std::uint32_t, kMaxIds> ids{};
  };
  Line& line_of(const std::array<std::uint64_t, 2>& key);

 private:
  std::vector<Line> lines_;
};

class Bpe {
 public:
  /// `context` names the file. Throws Error(malformed) for a merge whose parts or result are not in
  /// the vocabulary.
  Bpe(const BpeVocabulary& vocabulary, const std::string& context);

  /// Appends the tokens of `piece` (raw bytes, not empty) to `out`.
  void encode(std::string_view piece, BpeCache& cache, std::vector<std::int64_t>& out) const;

  /// Id by spelling (byte alphabet), TokenIndex::kNone when absent.
  std::uint32_t find(std::string_view spelling) const { return by_spelling_.find(spelling); }

 private:
  struct Merge {
    std::uint64_t pair = ~0ULL;  // left << 32 | right
    std::uint32_t rank = 0;
    std::uint32_t result = 0;
  };
  struct Symbol {
    std::uint32_t id;
    std::int32_t previous;
    std::int32_t next;
    bool is_alive;
  };
  const Merge* merge_of(std::uint32_t left, std::uint32_t right) const;
  void insert(const Merge& merge);
  void initial_symbols(std::string_view piece, std::vector<std::uint32_t>& ids) const;
  void merge_short(std::vector<std::uint32_t>& ids) const;
  void merge_long(std::vector<std::uint32_t>& ids) const;

  std::array<std::uint32_t, 256> byte_ids_{};
  std::uint32_t unk_id_ = TokenIndex::kNone;
  bool fuse_unk_;
  bool ignore_merges_;
  TokenIndex by_spelling_;
  TokenIndex by_bytes_;  // filled when ignore_merges
  std::vector<Merge> merges_;
  std::uint64_t mask_ = 0;
};

}  // namespace lora::text
