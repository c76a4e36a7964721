// A base with more tokens than its checkpoint has.
#pragma once

#include <cstdint>
#include <string>

#include "lora/checkpoint/checkpoint.h"

namespace lora {

/// The tables that have a row a token, by module path; the head is empty where it shares the
/// embedding's weight.
struct VocabularyTables {
  std::string embedding;
  std::string head;
  std::int64_t rows = 0;
};

/// Throws Error(unsupported) when the base is no causal language model that the engine can run.
VocabularyTables vocabulary_tables(const Checkpoint& base);

/// The same model with `count` more rows at the end of its embedding and of a head of its own. Each
/// is the mean of the rows there are, which is what transformers' resize_token_embeddings draws
/// around. The document of the configuration stays as it was. Throws as vocabulary_tables.
Checkpoint grow_vocabulary(const Checkpoint& base, std::int64_t count);

}  // namespace lora
