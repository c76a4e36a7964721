// The added tokens of a tokenizer: their ids, and where they are in a text.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "format/allocation_budget.h"
#include "lora/format/json.h"
#include "text/added_tokens.h"
#include "text/normalizer.h"
#include "text/token_model.h"

namespace lora::text {

class AddedVocabulary {
 public:
  struct Source {
    const Json& listed;                      ///< `added_tokens` of the file, or null
    const std::vector<AddedToken>& further;  ///< what the files beside it add
    const TokenModel& model;
    std::size_t model_size;
    const Normalizer& normalizer;
    const std::string& context;  ///< the file
  };
  /// Throws Error(malformed). What it keeps is paid from `budget`.
  AddedVocabulary(const Source& source, AllocationBudget& budget);

  const std::vector<AddedToken>& tokens() const { return tokens_; }
  /// How the token at this place of tokens() is named and decoded: the reference takes the
  /// normalized form of a token that is matched on normalized text.
  std::string_view spelling(std::size_t place) const { return spellings_[place]; }
  std::optional<std::int64_t> find(std::string_view content) const;
  /// -1 when there are no tokens.
  std::int64_t largest_id() const { return largest_id_; }
  /// The reference leaves a token out of a text without special ones when its spelling is that of
  /// one.
  bool is_special_content(std::string_view spelling) const;

  const AddedTokenMatcher& raw() const { return raw_; }
  const AddedTokenMatcher& normalized() const { return normalized_; }

 private:
  void add(AddedToken token, const Source& source, AllocationBudget& budget);

  std::vector<AddedToken> tokens_;
  std::map<std::string, std::size_t, std::less<>> places_;  // into tokens_
  std::deque<std::string> spellings_;
  std::int64_t largest_id_ = -1;
  AddedTokenMatcher raw_;
  AddedTokenMatcher normalized_;
};

}  // namespace lora::text
