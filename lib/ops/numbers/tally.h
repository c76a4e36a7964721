// Statistics of a tensor in pieces: each piece is tallied on its own, pieces are joined in order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lora/base/tensor.h"
#include "lora/ops/statistics.h"
#include "ops/numbers/kernels.h"

namespace lora::numbers {

/// A float tensor as a matrix: dimension 0 by everything else.
struct MatrixView {
  DType dtype = DType::f32;
  const std::byte* data = nullptr;
  std::int64_t rows = 0, columns = 0;
  bool has_rows = false;  ///< of two dimensions or more
  double shift = 0;       ///< first value, or 0 when it is not finite

  /// Throws Error(unsupported) for dtypes that are not floats.
  explicit MatrixView(const Tensor& tensor);
  MatrixView() = default;
  const std::byte* at(std::int64_t row, std::int64_t column) const;
};

/// What is known of some rows of a tensor, or of some columns of all its rows.
struct Tally {
  Scan scan;
  std::int64_t nan_count = 0, inf_count = 0, first_non_finite = -1;
  std::int64_t first_row = 0;
  std::vector<char> is_used;  ///< by row from first_row: holds a value that is not zero
};

/// Takes runs of consecutive values one after another: tallies each and hands it back widened.
class RunReader {
 public:
  RunReader(const MatrixView& matrix, std::int64_t first_row, std::int64_t rows);
  /// Widens only.
  explicit RunReader(const MatrixView& matrix);

  /// `count` values from [row, column] on: a part of one row, or whole rows from column 0. The
  /// result is valid until the next call. T is double for f64 and float otherwise.
  template <typename T>
  const T* take(std::int64_t row, std::int64_t column, std::int64_t count);

  Tally finish() { return std::move(tally_); }

 private:
  template <typename T>
  void count_run(const T* values, std::int64_t row, std::int64_t column, std::int64_t count);

  const MatrixView& matrix_;
  Tally tally_;
  float smallest_normal_;
  bool has_tally_;
  std::vector<float> floats_;
  std::vector<double> doubles_;
};

extern template const float* RunReader::take(std::int64_t, std::int64_t, std::int64_t);
extern template const double* RunReader::take(std::int64_t, std::int64_t, std::int64_t);

/// How many whole rows make a piece of work: about two million values.
std::int64_t rows_at_once(const MatrixView& matrix);

/// Some whole rows.
Tally tally_rows(const MatrixView& matrix, std::int64_t first_row, std::int64_t rows);

/// Of the whole tensor, from tallies that cover every value once, in order.
TensorStatistics join(const MatrixView& matrix, std::span<const Tally> tallies);

}  // namespace lora::numbers
