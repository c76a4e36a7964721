// A data set as a run sees it: examples in rows, one in each or, packed, several.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/batch.h"
#include "lora/text/dataset.h"

namespace lora::engine {

class DataRows {
 public:
  DataRows() = default;
  /// One example a row.
  explicit DataRows(Dataset examples) : examples_(std::move(examples)) {}
  /// Several examples a row, at most `capacity` tokens in each (pack_documents).
  DataRows(Dataset examples, std::int64_t capacity, std::uint64_t seed, bool shuffle);

  const Dataset& examples() const { return examples_; }
  bool is_packed() const { return capacity_ != 0; }
  std::int64_t capacity() const { return capacity_; }  ///< tokens of a packed row
  std::size_t size() const { return is_packed() ? rows_.size() : examples_.size(); }
  std::int64_t length(std::size_t row) const;  ///< in tokens; only of token data
  double fill() const;                         ///< of packed rows: share that holds tokens

  Batch batch(std::span<const std::size_t> rows) const;
  /// Where the examples of these rows came from, as `origins` says it.
  std::string origins_of(std::span<const std::size_t> rows) const;

 private:
  Dataset examples_;
  std::int64_t capacity_ = 0;
  std::vector<std::vector<std::size_t>> rows_;
};

}  // namespace lora::engine
