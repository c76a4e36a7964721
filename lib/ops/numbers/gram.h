// Gram matrices of rank rows: A . A^T and B^T . B of LoRA factors, and products across two
// adapters, in f64 and in a fixed order.
//
// A factor is seen as `length` vectors of `rank` numbers: the columns of A, the rows of B.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/numbers/tally.h"

namespace lora::numbers {

/// Which dimension of a factor is the rank.
enum class Side { rows, columns };  // A: rank in rows; B: rank in columns

/// A stretch of a factor, widened and laid out for the kernels: blocks of 8 rank rows, in each
/// block the vectors one after another.
class Panel {
 public:
  explicit Panel(std::int64_t rank);

  /// Vectors that fit.
  std::int64_t capacity() const { return capacity_; }
  std::int64_t blocks() const { return blocks_; }
  std::int64_t count() const { return count_; }
  const double* block(std::int64_t index) const { return values_.data() + index * capacity_ * 8; }

  /// Becomes left - right . coefficients^T, vector by vector: rank row i of the result is rank row
  /// i of `left` minus the sum over j of coefficients[i * rank of right + j] times row j of
  /// `right`.
  void subtract(const Panel& left, const Panel& right, const std::vector<double>& coefficients);

  /// Takes vectors [first, first + count) of the factor through `reader`.
  void fill(const MatrixView& factor, Side side, std::int64_t first, std::int64_t count,
            RunReader& reader);

 private:
  template <typename T>
  void fill_as(const MatrixView& factor, Side side, std::int64_t first, RunReader& reader);

  std::int64_t rank_, blocks_, capacity_, count_ = 0;
  std::vector<double> values_;
};

/// Sums over vectors: products[i * stride + j] of rank rows i (left) and j (right), and for a
/// factor with itself the sum of each rank row.
struct Gram {
  std::int64_t rows = 0, columns = 0, stride = 0;
  std::vector<double> products;
  std::vector<double> sums;

  Gram() = default;
  Gram(std::int64_t left_rank, std::int64_t right_rank);
  double at(std::int64_t i, std::int64_t j) const {
    return products[static_cast<std::size_t>(i * stride + j)];
  }
  /// Adds p^T p; only tiles on and above the diagonal until `mirror`.
  void add(const Panel& panel);
  /// Adds p^T q.
  void add(const Panel& left, const Panel& right);
  /// Fills the lower half of a symmetric matrix.
  void mirror();
  Gram& operator+=(const Gram& other);
};

struct FactorSums {
  Gram gram;
  Tally tally;
};

/// Vectors [first, first + count) of a factor, and the tally of their values.
FactorSums sum_vectors(const MatrixView& factor, Side side, std::int64_t first, std::int64_t count);

/// Rank and number of vectors of a factor.
std::int64_t rank_of(const MatrixView& factor, Side side);
std::int64_t length_of(const MatrixView& factor, Side side);

}  // namespace lora::numbers
