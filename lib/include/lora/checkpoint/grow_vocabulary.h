// A base with more tokens than its checkpoint has.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
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

/// Indices of trained token rows by the module path of their table.
using TokenIndices = std::map<std::string, std::set<std::int64_t>>;

/// The base grown by the tokens that adapters add. nullopt when they add none, and when what they
/// hold cannot be added: a base that is no causal language model, rows that do not follow the
/// base's own one by one, tables of unequal growth.
std::optional<Checkpoint> grown_for(const Checkpoint& base, const TokenIndices& indices);

}  // namespace lora
