// Tokens that a run adds to its base: their ids, their rows, and the tokenizer that knows them.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "lora/adapter/config.h"
#include "lora/base/atomic_write.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora::engine {

struct AddedTokens {
  std::vector<std::string> texts;
  std::vector<std::int64_t> ids;
  /// The base with rows for them; null when its tables have spare rows.
  std::shared_ptr<const Checkpoint> base;
};

/// Numbers the tokens as the tokenizer of the base's folder would (transformers' add_tokens).
/// Throws Error(usage) for a token that is empty, given twice or known already, Error(not_found)
/// without a tokenizer, Error(unsupported) for a base that is no causal language model.
AddedTokens add_tokens(const Checkpoint& base, const std::vector<std::string>& texts);

/// Names their rows in trainable_token_indices: a list where the head shares the embedding's
/// weight, otherwise one for each of both. Tokens that were named before stay.
void train_added_tokens(AdapterConfig& config, const AddedTokens& tokens, const Checkpoint& base);

/// Writes the tokenizer of the base's folder beside an adapter, its tokenizer.json with the new
/// tokens.
void write_tokenizer(AtomicDirectory& directory, const AddedTokens& tokens,
                     const std::filesystem::path& base_directory);

}  // namespace lora::engine
