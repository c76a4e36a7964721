// Unigram: of all ways to cut a piece into tokens, the one with the largest sum of scores.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/token_index.h"
#include "text/token_model.h"
#include "text/token_trie.h"

namespace lora::text {

class Unigram : public TokenModel {
 public:
  /// `context` names the file. Throws Error(malformed) when `unk_id` is no token.
  Unigram(const TokenTables& tables, std::optional<std::size_t> unk_id, bool byte_fallback,
          AllocationBudget& budget, const std::string& context);

  /// Throws Error(malformed) for a character that no token covers when there is no unknown one.
  void encode(std::string_view piece, std::vector<std::uint32_t>& out) const override;
  std::uint32_t find(std::string_view spelling) const override {
    return by_spelling_.find(spelling);
  }

 private:
  /// The best way to reach a place.
  struct Place {
    double score = 0;
    std::uint32_t start = kUnreached;  // of its last token
    std::uint32_t token = 0;
  };
  static constexpr std::uint32_t kUnreached = 0xFFFFFFFF;

  std::vector<Place> best_places(std::string_view piece) const;
  void append_unknown(std::string_view text, std::vector<std::uint32_t>& out) const;

  TokenIndex by_spelling_;
  TokenTrie trie_;
  std::vector<double> scores_;  // by id
  double unk_score_ = 0;
  std::uint32_t unk_id_ = TokenIndex::kNone;
  std::vector<std::uint32_t> fallback_;  // filled when byte_fallback
};

}  // namespace lora::text
