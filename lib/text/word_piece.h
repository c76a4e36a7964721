// WordPiece: the longest token that a word begins with, then the longest of what is left.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/token_index.h"
#include "text/token_model.h"
#include "text/token_trie.h"

namespace lora::text {

struct WordPieceOptions {
  std::string unk_token;
  std::string prefix;                 ///< before every token of a word but the first
  std::size_t most_characters = 100;  ///< a longer word is unknown
};

class WordPiece : public TokenModel {
 public:
  /// `context` names the file. Throws Error(malformed) when the unknown token is not in the
  /// vocabulary.
  WordPiece(const TokenTables& tables, WordPieceOptions options, AllocationBudget& budget,
            const std::string& context);

  void encode(std::string_view piece, std::vector<std::uint32_t>& out) const override;
  std::uint32_t find(std::string_view spelling) const override {
    return by_spelling_.find(spelling);
  }

 private:
  WordPieceOptions options_;
  TokenIndex by_spelling_;
  TokenTrie trie_;
  std::uint32_t continuing_ = TokenTrie::kNone;  // where the prefix leads
  std::uint32_t unk_id_;
};

}  // namespace lora::text
