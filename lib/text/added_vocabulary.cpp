#include "text/added_vocabulary.h"

#include <algorithm>
#include <utility>

#include "lora/base/error.h"
#include "text/component.h"

namespace lora::text {
namespace {

// The search for added tokens tries one at every byte of a text.
constexpr std::size_t kLongestAddedToken = 1024;
// The token itself, its place by content, and its copy in a matcher.
constexpr std::uint64_t kAddedTokenBytes = 384;

AddedToken token_of(const Json& entry, const std::string& context) {
  AddedToken token;
  const Json* content = entry.find("content");
  const Json* id = entry.find("id");
  if (!content || !content->as_string() || !id || !id->as_int())
    throw malformed_tokenizer("an added token lacks \"id\" or \"content\"", context);
  token.id = *id->as_int();
  token.content = *content->as_string();
  const auto flag = [&](std::string_view name) {
    const Json* value = entry.find(name);
    return value && value->as_bool().value_or(false);
  };
  token.single_word = flag("single_word");
  token.lstrip = flag("lstrip");
  token.rstrip = flag("rstrip");
  token.normalized = flag("normalized");
  token.special = flag("special");
  return token;
}

}  // namespace

AddedVocabulary::AddedVocabulary(const Source& source, AllocationBudget& budget) {
  if (!source.listed.is_null()) {
    if (!source.listed.is_array())
      throw malformed_tokenizer("\"added_tokens\" is not an array", source.context);
    for (const Json& entry : *source.listed.as_array())
      add(token_of(entry, source.context), source, budget);
  }
  for (const AddedToken& token : source.further)
    if (!places_.contains(token.content)) add(token, source, budget);
  for (const AddedToken& token : tokens_) {
    if (!token.normalized) {
      spellings_.push_back(token.content);
      raw_.add(token, token.content);
      continue;
    }
    const std::string& normal = spellings_.emplace_back(source.normalizer.apply(token.content));
    spend_memory_of_tokenizer(budget, 4 * normal.size(), source.context);
    normalized_.add(token, normal);
  }
  raw_.index();
  normalized_.index();
}

// A token that the model knows has the model's id. Others are numbered after the vocabulary, as
// the reference does whatever the file says, so a file in disorder reads the same there and here.
void AddedVocabulary::add(AddedToken token, const Source& source, AllocationBudget& budget) {
  if (token.content.empty()) return;
  if (token.content.size() > kLongestAddedToken)
    throw malformed_tokenizer("an added token has " + std::to_string(token.content.size()) +
                                  " bytes, expected at most " + std::to_string(kLongestAddedToken),
                              source.context);
  spend_memory_of_tokenizer(budget, kAddedTokenBytes + 4 * token.content.size(), source.context);
  const std::uint32_t known = source.model.find(token.content);
  const auto [place, is_new] = places_.try_emplace(token.content, tokens_.size());
  if (known != TokenIndex::kNone) {
    token.id = known;
  } else if (!is_new) {
    token.id = tokens_[place->second].id;
  } else {
    token.id = std::max(static_cast<std::int64_t>(source.model_size), largest_id_ + 1);
  }
  largest_id_ = std::max(largest_id_, token.id);
  if (is_new) {
    tokens_.push_back(std::move(token));
  } else {
    tokens_[place->second] = std::move(token);
  }
}

std::optional<std::int64_t> AddedVocabulary::find(std::string_view content) const {
  const auto found = places_.find(content);
  if (found == places_.end()) return std::nullopt;
  return tokens_[found->second].id;
}

bool AddedVocabulary::is_special_content(std::string_view spelling) const {
  const auto found = places_.find(spelling);
  return found != places_.end() && tokens_[found->second].special;
}

}  // namespace lora::text
