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

Tensor with_mean_rows(const Tensor& table, std::int64_t count) {
  const auto columns = static_cast<std::size_t>(table.shape[1]);
  const std::vector<float> values = table.to_f32();
  std::vector<double> sums(columns);
  for (std::size_t i = 0; i < values.size(); ++i) sums[i % columns] += values[i];
  std::vector<float> mean;
  for (const double sum : sums)
    mean.push_back(static_cast<float>(sum / static_cast<double>(table.shape[0])));
  const Tensor row = Tensor::from_f32({1, table.shape[1]}, mean).cast(table.dtype);
  std::vector<std::byte> bytes(table.bytes.begin(), table.bytes.end());
  for (std::int64_t i = 0; i < count; ++i)
    bytes.insert(bytes.end(), row.bytes.begin(), row.bytes.end());
  return Tensor::from_bytes(table.dtype, {table.shape[0] + count, table.shape[1]},
                            std::move(bytes));
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

}  // namespace lora
