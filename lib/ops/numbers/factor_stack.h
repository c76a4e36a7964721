// The factors of several products of one shape, one above the other: all A, or all B.
#pragma once

#include <vector>

#include "lora/adapter/update.h"
#include "ops/numbers/gram.h"
#include "ops/numbers/symmetric.h"

namespace lora::numbers {

/// The scalings belong to the stack of B. The tensors must outlive the stack.
class FactorStack {
 public:
  FactorStack(const std::vector<UpdateFactor>& terms, Side side);

  std::int64_t length() const { return length_; }
  /// Gram matrix of all rank rows, scaled.
  Matrix gram() const;
  /// All vectors times coefficients [sum of the ranks, k]: [length, k].
  Matrix combined(const Matrix& coefficients) const;
  /// The stack itself, [length, sum of the ranks], scaled.
  Matrix dense() const { return combined(Matrix::Identity(rank_, rank_)); }

 private:
  Vector scale_vector() const;

  Side side_;
  std::int64_t rank_ = 0, length_ = 0;
  std::vector<MatrixView> views_;
  std::vector<std::int64_t> first_;
  std::vector<double> scales_;
};

/// Gram matrices of both stacks.
struct StackGrams {
  Matrix a, b;

  explicit StackGrams(const std::vector<UpdateFactor>& terms)
      : a(FactorStack(terms, Side::rows).gram()), b(FactorStack(terms, Side::columns).gram()) {}
};

}  // namespace lora::numbers
