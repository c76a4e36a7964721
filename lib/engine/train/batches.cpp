#include "engine/train/batches.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

namespace lora::engine {
namespace {

Tensor gather_rows(const Tensor& table, std::span<const std::size_t> indices) {
  const std::size_t row_bytes = table.bytes.size() / static_cast<std::size_t>(table.shape.at(0));
  std::vector<std::byte> rows(row_bytes * indices.size());
  for (std::size_t i = 0; i < indices.size(); ++i)
    std::memcpy(rows.data() + i * row_bytes, table.bytes.data() + indices[i] * row_bytes,
                row_bytes);
  std::vector<std::int64_t> shape = table.shape;
  shape[0] = static_cast<std::int64_t>(indices.size());
  return Tensor::from_bytes(table.dtype, std::move(shape), std::move(rows));
}

// The examples of each row one behind the other, padded on the right to the longest row.
void fill_rows(Batch& batch, const Dataset& data,
               std::span<const std::span<const std::size_t>> rows) {
  for (const auto& row : rows) {
    std::int64_t length = 0;
    for (const std::size_t index : row) length += data.length(index);
    batch.lengths.push_back(length);
    batch.columns = std::max(batch.columns, length);
  }
  const auto columns = static_cast<std::size_t>(batch.columns);
  batch.input_ids.assign(rows.size() * columns, 0);
  batch.labels.assign(rows.size() * columns, kIgnoredLabel);
  for (std::size_t row = 0; row < rows.size(); ++row) {
    auto at = static_cast<std::ptrdiff_t>(row * columns);
    for (const std::size_t index : rows[row]) {
      const Example example = data.example(index);
      std::copy(example.input_ids.begin(), example.input_ids.end(), batch.input_ids.begin() + at);
      std::copy(example.labels.begin(), example.labels.end(), batch.labels.begin() + at);
      at += static_cast<std::ptrdiff_t>(example.input_ids.size());
    }
  }
}

}  // namespace

Batch make_batch(const Dataset& data, std::span<const std::size_t> indices) {
  Batch batch;
  batch.rows = static_cast<std::int64_t>(indices.size());
  if (data.is_tabular) {
    batch.x = gather_rows(data.x, indices);
    batch.y = gather_rows(data.y, indices);
    return batch;
  }
  batch.is_shifted = data.label_use == LabelUse::next_token;
  if (data.label_use == LabelUse::sequence) batch.y = gather_rows(data.y, indices);
  std::vector<std::span<const std::size_t>> rows;
  for (std::size_t row = 0; row < indices.size(); ++row) rows.push_back(indices.subspan(row, 1));
  fill_rows(batch, data, rows);
  return batch;
}

Batch make_packed_batch(const Dataset& data, std::span<const std::span<const std::size_t>> rows) {
  Batch batch;
  batch.rows = static_cast<std::int64_t>(rows.size());
  fill_rows(batch, data, rows);
  // Padding stays a document of its own at each position: it sees nothing and has no place that a
  // table of positions could lack.
  const auto columns = static_cast<std::size_t>(batch.columns);
  batch.starts.resize(rows.size() * columns);
  for (std::size_t row = 0; row < rows.size(); ++row) {
    const auto first = batch.starts.begin() + static_cast<std::ptrdiff_t>(row * columns);
    std::iota(first, first + batch.columns, 0);
    std::int64_t begin = 0;
    for (const std::size_t index : rows[row]) {
      std::fill_n(first + begin, data.length(index), static_cast<std::int32_t>(begin));
      begin += data.length(index);
    }
  }
  return batch;
}

std::int64_t token_count(const Batch& batch) {
  if (batch.input_ids.empty()) return batch.rows;
  return std::accumulate(batch.lengths.begin(), batch.lengths.end(), std::int64_t{0});
}

std::string origins(const Dataset& data, std::span<const std::size_t> indices) {
  constexpr std::size_t kNamed = 8;
  std::string text;
  for (std::size_t i = 0; i < std::min(indices.size(), kNamed); ++i)
    text += (i == 0 ? "" : ", ") + data.origin(indices[i]);
  if (indices.size() > kNamed) text += " and " + std::to_string(indices.size() - kNamed) + " more";
  return text;
}

}  // namespace lora::engine
