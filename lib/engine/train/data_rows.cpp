#include "engine/train/data_rows.h"

#include <utility>

#include "engine/train/batches.h"
#include "lora/text/packing.h"

namespace lora::engine {

DataRows::DataRows(Dataset examples, std::int64_t capacity, std::uint64_t seed, bool shuffle)
    : examples_(std::move(examples)), capacity_(capacity) {
  std::vector<std::int64_t> lengths;
  lengths.reserve(examples_.size());
  for (std::size_t i = 0; i < examples_.size(); ++i) lengths.push_back(examples_.length(i));
  rows_ = pack_documents(lengths, capacity, seed, shuffle);
}

std::int64_t DataRows::length(std::size_t row) const {
  if (!is_packed()) return examples_.length(row);
  std::int64_t total = 0;
  for (const std::size_t example : rows_[row]) total += examples_.length(example);
  return total;
}

double DataRows::fill() const {
  return static_cast<double>(examples_.total_tokens) /
         (static_cast<double>(capacity_) * static_cast<double>(rows_.size()));
}

Batch DataRows::batch(std::span<const std::size_t> rows) const {
  if (!is_packed()) return make_batch(examples_, rows);
  std::vector<std::span<const std::size_t>> documents;
  for (const std::size_t row : rows) documents.emplace_back(rows_[row]);
  return make_packed_batch(examples_, documents);
}

std::string DataRows::origins_of(std::span<const std::size_t> rows) const {
  if (!is_packed()) return origins(examples_, rows);
  std::vector<std::size_t> all;
  for (const std::size_t row : rows) all.insert(all.end(), rows_[row].begin(), rows_[row].end());
  return origins(examples_, all);
}

}  // namespace lora::engine
