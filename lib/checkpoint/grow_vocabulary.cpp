#include "lora/checkpoint/grow_vocabulary.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "lora/base/error.h"

namespace lora {
namespace {

// The name of a module's weight in the checkpoint; those of a bare model lack the first component.
std::string weight_name(const Checkpoint& base, const std::string& module_path) {
  const std::string name = module_path + ".weight";
  return base.find(name) != nullptr ? name : name.substr(name.find('.') + 1);
}

// Widened a stretch of rows at a time: a table may be a large part of the model.
std::vector<double> column_sums(const Tensor& table) {
  constexpr std::int64_t kElements = 1 << 20;
  const std::int64_t columns = table.shape[1];
  std::vector<double> sums(static_cast<std::size_t>(columns));
  const std::int64_t rows =
      std::max<std::int64_t>(1, kElements / std::max<std::int64_t>(1, columns));
  for (std::int64_t first = 0; first < table.shape[0]; first += rows) {
    Tensor part = table;
    part.shape[0] = std::min(rows, table.shape[0] - first);
    const auto width = static_cast<std::size_t>(columns) * bits_of(table.dtype) / 8;
    part.bytes = table.bytes.subspan(static_cast<std::size_t>(first) * width,
                                     static_cast<std::size_t>(part.shape[0]) * width);
    const std::vector<float> values = part.to_f32();
    for (std::size_t i = 0; i < values.size(); ++i) sums[i % sums.size()] += values[i];
  }
  return sums;
}

Tensor with_mean_rows(const Tensor& table, std::int64_t count) {
  std::vector<float> mean;
  for (const double sum : column_sums(table))
    mean.push_back(static_cast<float>(sum / static_cast<double>(table.shape[0])));
  const Tensor row = Tensor::from_f32({1, table.shape[1]}, mean).cast(table.dtype);
  std::vector<std::byte> bytes;
  bytes.reserve(table.bytes.size() + static_cast<std::size_t>(count) * row.bytes.size());
  bytes.assign(table.bytes.begin(), table.bytes.end());
  for (std::int64_t i = 0; i < count; ++i)
    bytes.insert(bytes.end(), row.bytes.begin(), row.bytes.end());
  return Tensor::from_bytes(table.dtype, {table.shape[0] + count, table.shape[1]},
                            std::move(bytes));
}

std::set<std::int64_t> beyond(const TokenIndices& indices, const std::string& table,
                              std::int64_t rows) {
  const auto found = indices.find(table);
  if (found == indices.end()) return {};
  return {found->second.lower_bound(rows), found->second.end()};
}

}  // namespace

VocabularyTables vocabulary_tables(const Checkpoint& base) {
  const auto tokens = base.config ? base.config->token_model() : std::nullopt;
  if (!tokens || !tokens->is_causal)
    throw Error(ErrorKind::unsupported,
                "cannot add tokens to " + base.path.string() + ": expected a causal language model")
        .in_file(base.path.string());
  VocabularyTables tables;
  tables.rows = tokens->vocab_size;
  for (const ModuleInfo& module : list_modules(base)) {
    if (module.kind == LayerKind::embedding && tables.embedding.empty())
      tables.embedding = module.module_path;
    if (module.is_output_head) tables.head = module.module_path;
  }
  if (base.aliases.contains(weight_name(base, tables.head))) tables.head.clear();
  return tables;
}

Checkpoint grow_vocabulary(const Checkpoint& base, std::int64_t count) {
  const VocabularyTables tables = vocabulary_tables(base);
  Checkpoint grown = base;
  for (const std::string& path : {tables.embedding, tables.head}) {
    const std::string name = path.empty() ? "" : weight_name(base, path);
    const auto table = grown.tensors.find(name);
    if (table == grown.tensors.end() || table->second.shape.size() != 2) continue;
    table->second = with_mean_rows(table->second, count);
  }
  ModelConfig& config = *grown.config;
  if (config.layout) config.layout->vocab_size += count;
  if (config.decoder) config.decoder->vocab_size += count;
  if (config.gpt2) config.gpt2->vocab_size += count;
  return grown;
}

std::optional<Checkpoint> grown_for(const Checkpoint& base, const TokenIndices& indices) {
  const auto model = base.config ? base.config->token_model() : std::nullopt;
  if (indices.empty() || !model || !model->is_causal) return std::nullopt;
  const VocabularyTables tables = vocabulary_tables(base);
  const std::set<std::int64_t> wanted = beyond(indices, tables.embedding, tables.rows);
  const auto count = static_cast<std::int64_t>(wanted.size());
  if (count == 0 || *wanted.rbegin() != tables.rows + count - 1) return std::nullopt;
  if (!tables.head.empty() && beyond(indices, tables.head, tables.rows) != wanted)
    return std::nullopt;
  return grow_vocabulary(base, count);
}

}  // namespace lora
