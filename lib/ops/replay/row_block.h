// A few rows of one target: products, every way to round, comparison with the merged bits.
#pragma once

#include <optional>
#include <vector>

#include "ops/replay/target.h"

namespace lora::replay {

/// Right factors of the additions of one block.
using BlockFactors = std::vector<RightFactor>;

std::vector<BlockFactors> pack_blocks(const Target& target, std::optional<DType> held_in);

class RowBlock {
 public:
  RowBlock(const Target& target, const std::vector<BlockFactors>& factors,
           std::vector<Rounding> ways, const Kernels& kernels);

  /// Rows from `row` that are checked best in one call: they share a block and fit the cache.
  std::int64_t rows_at_once(std::int64_t row) const;

  /// Which of the ways in `alive` (one bit each) give the merged bits of these rows. Adds to
  /// `sums` whatever the answer.
  unsigned check(std::int64_t first, std::int64_t count, unsigned alive, Sums& sums);

 private:
  const Block* block_of(std::int64_t row) const;
  void multiply(std::int64_t first, std::int64_t count);
  bool gives_merged_row(std::int64_t row, std::int64_t index, const Rounding& way);
  void sum_up(const Rounding& way, const std::vector<const float*>& updates, std::size_t n,
              const float* start, float* values);
  void finish(std::int64_t row, const Rounding& way, float* values);

  const Target& target_;
  const std::vector<BlockFactors>& factors_;
  std::vector<Rounding> ways_;
  const Kernels& kernels_;
  std::vector<float> magnitude_;
  std::optional<DType> held_in_;
  const Block* block_ = nullptr;
  std::vector<std::vector<float>> left_, products_, updates_;  ///< one an addition
  std::vector<const float*> update_rows_;
  std::vector<float> base_, merged_, values_, rounded_, total_;
};

/// sqrt of the sum of squares of a contiguous row, summed as torch's CPU norm does on AVX2.
float row_norm(const float* values, std::int64_t n);

}  // namespace lora::replay
