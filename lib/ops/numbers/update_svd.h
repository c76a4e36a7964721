// The thin singular value decomposition of a sum of products s_i * B_i . A_i, without the matrix
// itself.
//
// Two ways. Where the rank rows of one factor are well apart (checked, and the rule for trained
// adapters), everything follows from Gram matrices of the factors: their eigenvectors give the best
// approximation of every rank to rounding, and singular values down to about 1e-8 of the largest.
// Everywhere else both stacked factors are orthogonalised (Householder) and the small core between
// them is decomposed, which resolves every singular value to 1e-15 of the largest.
#pragma once

#include <span>
#include <vector>

#include "lora/adapter/update.h"
#include "ops/numbers/factor_stack.h"
#include "ops/numbers/symmetric.h"

namespace lora::numbers {

class UpdateSvd {
 public:
  /// `terms` have equal rows and columns; their experts and first rows are not looked at. Values
  /// must be finite. The tensors are read again by left() and right().
  explicit UpdateSvd(std::vector<UpdateFactor> terms);
  /// Where the Gram matrices of these terms are known already.
  UpdateSvd(std::vector<UpdateFactor> terms, const StackGrams& grams);

  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  /// Descending; as many as the sum can have: min(rows, columns, sum of the ranks).
  const Vector& values() const { return values_; }
  /// ||sum||_F^2.
  double energy() const { return values_.squaredNorm(); }

  /// The first k left and right singular vectors, [rows, k] and [columns, k]. Vectors of values
  /// that are zero, or too small to be told from it, may be zero.
  Matrix left(Eigen::Index k) const;
  Matrix right(Eigen::Index k) const;

  /// True when the values came from Gram matrices.
  bool is_from_gram() const { return is_from_gram_; }

 private:
  void measure();
  bool may_use_gram() const;
  bool try_gram(const StackGrams& grams);
  void decompose();

  std::vector<UpdateFactor> terms_;
  std::int64_t rows_ = 0, columns_ = 0, rank_ = 0;
  Vector values_;
  bool is_from_gram_ = false;
  Matrix left_, right_;  ///< from Gram: coefficients of the stacked factors; else the vectors
};

/// B [rows, k] and A [k, columns] with B . A / scaling the best approximation of rank k, the root
/// of each singular value in both. `k` may exceed the number of values: the rest is zero.
struct SplitFactors {
  Matrix b, a;
};
SplitFactors split_factors(const UpdateSvd& svd, Eigen::Index k, double scaling);

}  // namespace lora::numbers
