// A few rows of one target: products and every way to round. Comparison with merged bits and the
// writing of a merge both stand on them.
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

  /// The merged values of these rows by the first way, in the dtype of the target, into `out`.
  /// Adds to `sums`. Throws Error(malformed) that names the tensor when a value is not finite.
  void write(std::int64_t first, std::int64_t count, std::byte* out, Sums& sums);

  /// DoRA by column: magnitude over norm of each column, which only a pass over all rows can tell.
  void set_column_factors(const std::vector<float>* factors) { column_factors_ = factors; }
  /// Adds the squares of the sums of base and update in these rows, column by column, to `squares`.
  void add_column_squares(std::int64_t first, std::int64_t count, std::vector<double>& squares);

 private:
  const Block* block_of(std::int64_t row) const;
  void begin(std::int64_t first, std::int64_t count);
  void begin_row(std::int64_t row, std::int64_t index);
  void compute(std::int64_t row, const Rounding& way);
  void multiply(std::int64_t first, std::int64_t count);
  bool gives_merged_row(std::int64_t row, std::int64_t index, const Rounding& way);
  const float* total_update();
  void sum_change(std::int64_t row, const float* merged, Sums& sums);
  void require_finite(std::int64_t row) const;
  void sum_up(const Rounding& way, const std::vector<const float*>& updates, std::size_t n,
              const float* start, float* values);
  void finish(std::int64_t row, const Rounding& way, float* values);
  bool adds_one_update(std::int64_t row) const;

  const Target& target_;
  const std::vector<BlockFactors>& factors_;
  std::vector<Rounding> ways_;
  const Kernels& kernels_;
  std::vector<float> magnitude_;
  std::optional<DType> held_in_;
  const std::vector<float>* column_factors_ = nullptr;
  const Block* block_ = nullptr;
  std::vector<std::vector<float>> left_, products_, updates_;  ///< one an addition
  std::vector<const float*> update_rows_;
  std::vector<float> base_, merged_, values_, rounded_, total_, exact_;
};

/// sqrt of the sum of squares of a contiguous row, summed as torch's CPU norm does on AVX2.
float row_norm(const float* values, std::int64_t n);

}  // namespace lora::replay
