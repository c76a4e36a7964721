#include "engine/grown_base.h"

#include <algorithm>
#include <set>
#include <string>

#include "lora/adapter/adapter.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/checkpoint/grow_vocabulary.h"

namespace lora::engine {
namespace {

// Indices from `rows` on that the adapters give to a table.
std::set<std::int64_t> beyond(const ModelOptions& options, const std::string& table,
                              std::int64_t rows) {
  std::set<std::int64_t> indices;
  for (const Adapter* adapter : options.adapters)
    for (const TokenRows& tokens : adapter->tokens)
      for (const std::int64_t index : tokens.indices)
        if (tokens.module_path == table && index >= rows) indices.insert(index);
  return indices;
}

}  // namespace

ModelOptions with_rows_for_tokens(const ModelOptions& options) {
  const auto has_tokens = [](const Adapter* adapter) { return !adapter->tokens.empty(); };
  const auto model = options.base->config ? options.base->config->token_model() : std::nullopt;
  if (!model || !model->is_causal ||
      std::none_of(options.adapters.begin(), options.adapters.end(), has_tokens))
    return options;
  const VocabularyTables tables = vocabulary_tables(*options.base);
  const std::set<std::int64_t> wanted = beyond(options, tables.embedding, tables.rows);
  const auto count = static_cast<std::int64_t>(wanted.size());
  if (count == 0 || *wanted.rbegin() != tables.rows + count - 1) return options;
  if (!tables.head.empty() && beyond(options, tables.head, tables.rows) != wanted) return options;
  ModelOptions grown = options;
  grown.owned_base = std::make_shared<const Checkpoint>(grow_vocabulary(*options.base, count));
  grown.base = grown.owned_base.get();
  return grown;
}

}  // namespace lora::engine
