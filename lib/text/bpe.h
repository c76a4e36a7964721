// Byte pair encoding.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/token_index.h"
#include "text/token_model.h"
#include "text/token_tables.h"

namespace lora::text {

struct BpeOptions {
  std::string unk_token;       ///< empty: none
  std::string prefix;          ///< before every character of a piece but the first
  std::string suffix;          ///< after the last character of a piece
  bool fuse_unk = false;       ///< unknown characters in a row are one token
  bool byte_fallback = false;  ///< an unknown character is its bytes, where all have tokens
  bool ignore_merges = false;  ///< a piece that is a token is that token
  bool pieces_are_bytes = false;
};

class Bpe : public TokenModel {
 public:
  /// `context` names the file. Throws Error(malformed) for a merge whose parts or result are not in
  /// the vocabulary.
  Bpe(const TokenTables& tables, BpeOptions options, const std::string& context);

  void encode(std::string_view piece, std::vector<std::uint32_t>& out) const override;
  std::uint32_t find(std::string_view spelling) const override {
    return by_spelling_.find(spelling);
  }

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
  void read_merges(const TokenTables& tables, const std::string& context);
  const Merge* merge_of(std::uint32_t left, std::uint32_t right) const;
  void insert(const Merge& merge);
  void symbols_of_bytes(std::string_view piece, std::vector<std::uint32_t>& ids) const;
  void symbols_of_characters(std::string_view piece, std::vector<std::uint32_t>& ids) const;
  std::uint32_t symbol_of_character(std::string_view character, std::string_view spelling) const;
  bool append_fallback(std::string_view spelling, std::vector<std::uint32_t>& ids) const;
  void merge_short(std::vector<std::uint32_t>& ids) const;
  void merge_long(std::vector<std::uint32_t>& ids) const;

  BpeOptions options_;
  TokenIndex by_spelling_;
  TokenIndex by_bytes_;  // filled when pieces are bytes and merges are ignored
  std::array<std::uint32_t, 256> byte_ids_{};  // of bytes; of ASCII where pieces are characters
  std::vector<std::uint32_t> fallback_;        // filled when byte_fallback
  std::uint32_t unk_id_ = TokenIndex::kNone;
  std::vector<Merge> merges_;
  std::uint64_t mask_ = 0;
};

}  // namespace lora::text
