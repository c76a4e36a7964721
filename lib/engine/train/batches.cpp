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
  for (const std::size_t index : indices)
    batch.columns = std::max(batch.columns, data.length(index));
  const auto columns = static_cast<std::size_t>(batch.columns);
  batch.input_ids.assign(indices.size() * columns, 0);
  batch.labels.assign(indices.size() * columns, kIgnoredLabel);
  for (std::size_t row = 0; row < indices.size(); ++row) {
    const Example example = data.example(indices[row]);
    const auto at = static_cast<std::ptrdiff_t>(row * columns);
    std::copy(example.input_ids.begin(), example.input_ids.end(), batch.input_ids.begin() + at);
    std::copy(example.labels.begin(), example.labels.end(), batch.labels.begin() + at);
    batch.lengths.push_back(static_cast<std::int64_t>(example.input_ids.size()));
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
