#include "ops/numbers/update_svd.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "ops/numbers/factor_stack.h"

namespace lora::numbers {
namespace {

// Few rank rows cost nothing either way, and the exact way is exact.
constexpr std::int64_t kFewRows = 8;
// Rank rows of unit length with pivots below this are too close to each other to be inverted.
constexpr double kLeastPivot = 1e-5;
// How far from orthonormal the vectors may be that the inverse gives.
constexpr double kOrthonormal = 1e-9;

struct GramSvd {
  Vector values;
  Matrix near, far;  // coefficients of the side that is inverted, and of the other
};

// D = Y X^T of stacked X and Y with Gram matrices x and y. With x = F F^T, X = Q F^T (Q orthonormal
// columns) and C = F^T y F = E diag(S^2) E^T: the singular vectors are Q E = X F^-T E and
// Y F E / S.
std::optional<GramSvd> svd_from_gram(const Matrix& x, const Matrix& y) {
  const Vector weights = balance(x, y);
  std::vector<Eigen::Index> used;
  for (Eigen::Index i = 0; i < weights.size(); ++i)
    if (weights(i) > 0 && std::isfinite(weights(i))) used.push_back(i);
  const auto count = static_cast<Eigen::Index>(used.size());
  GramSvd result;
  result.values = Vector::Zero(x.rows());
  result.near = result.far = Matrix::Zero(x.rows(), x.rows());
  if (count == 0) return result;
  const Vector lengths = x.diagonal()(used).cwiseSqrt();
  const Vector inverse = lengths.cwiseInverse();
  if (!inverse.allFinite()) return std::nullopt;
  const Matrix unit = inverse.asDiagonal() * Matrix(x(used, used)) * inverse.asDiagonal();
  const Eigen::LDLT<Matrix> pivots(unit);
  if (!(pivots.vectorD().minCoeff() > kLeastPivot)) return std::nullopt;
  const Eigen::LLT<Matrix> cholesky(unit);
  if (cholesky.info() != Eigen::Success) return std::nullopt;
  const Matrix factor = cholesky.matrixL();
  const Matrix other = lengths.asDiagonal() * Matrix(y(used, used)) * lengths.asDiagonal();
  const Matrix core = factor.transpose() * other * factor;
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(core);
  if (solver.info() != Eigen::Success || !solver.eigenvalues().allFinite()) return std::nullopt;
  const Matrix vectors = solver.eigenvectors().rowwise().reverse();
  const Matrix near = cholesky.matrixU().solve(vectors);
  const Matrix identity = near.transpose() * unit * near;
  if ((identity - Matrix::Identity(count, count)).cwiseAbs().maxCoeff() > kOrthonormal)
    return std::nullopt;
  const Vector values = solver.eigenvalues().reverse().cwiseMax(0).cwiseSqrt();
  const Vector divisors = (values.array() > 0).select(values.cwiseInverse(), 0);
  const Matrix far = factor * vectors * divisors.asDiagonal();
  result.values.head(count) = values;
  for (Eigen::Index i = 0; i < count; ++i) {
    result.near.row(used[static_cast<std::size_t>(i)]).head(count) = inverse(i) * near.row(i);
    result.far.row(used[static_cast<std::size_t>(i)]).head(count) = lengths(i) * far.row(i);
  }
  return result;
}

// Q and R of a matrix with more rows than columns; a smaller one is its own R.
struct Orthogonal {
  Matrix q, r;
  bool is_whole;  // q is the identity

  explicit Orthogonal(const Matrix& matrix) : is_whole(matrix.rows() <= matrix.cols()) {
    if (is_whole) {
      r = matrix;
      return;
    }
    const Eigen::HouseholderQR<Matrix> qr(matrix);
    q = qr.householderQ() * Matrix::Identity(matrix.rows(), matrix.cols());
    r = qr.matrixQR().topRows(matrix.cols()).triangularView<Eigen::Upper>();
  }

  Matrix times(const Matrix& vectors) const { return is_whole ? vectors : Matrix(q * vectors); }
};

}  // namespace

UpdateSvd::UpdateSvd(std::vector<UpdateFactor> terms) : terms_(std::move(terms)) {
  measure();
  if (terms_.empty()) return;
  is_from_gram_ = may_use_gram() && try_gram(StackGrams(terms_));
  if (!is_from_gram_) decompose();
}

UpdateSvd::UpdateSvd(std::vector<UpdateFactor> terms, const StackGrams& grams)
    : terms_(std::move(terms)) {
  measure();
  if (terms_.empty()) return;
  is_from_gram_ = may_use_gram() && try_gram(grams);
  if (!is_from_gram_) decompose();
}

void UpdateSvd::measure() {
  for (const UpdateFactor& term : terms_) rank_ += term.a.shape.at(0);
  rows_ = terms_.empty() ? 0 : terms_.front().b.shape.at(0);
  columns_ = terms_.empty() ? 0 : terms_.front().a.shape.at(1);
}

bool UpdateSvd::may_use_gram() const {
  return rank_ > kFewRows && 2 * rank_ <= std::min(rows_, columns_);
}

bool UpdateSvd::try_gram(const StackGrams& grams) {
  const Matrix& a = grams.a;
  const Matrix& b = grams.b;
  if (auto found = svd_from_gram(a, b)) {
    values_ = std::move(found->values);
    right_ = std::move(found->near);
    left_ = std::move(found->far);
    return true;
  }
  auto found = svd_from_gram(b, a);
  if (!found) return false;
  values_ = std::move(found->values);
  left_ = std::move(found->near);
  right_ = std::move(found->far);
  return true;
}

void UpdateSvd::decompose() {
  const Orthogonal b(FactorStack(terms_, Side::columns).dense());
  const Orthogonal a(FactorStack(terms_, Side::rows).dense());
  const Matrix core = b.r * a.r.transpose();
  const Eigen::BDCSVD<Matrix> svd(core, Eigen::ComputeThinU | Eigen::ComputeThinV);
  values_ = svd.singularValues();
  left_ = b.times(svd.matrixU());
  right_ = a.times(svd.matrixV());
}

Matrix UpdateSvd::left(Eigen::Index k) const {
  return is_from_gram_ ? FactorStack(terms_, Side::columns).combined(left_.leftCols(k))
                       : Matrix(left_.leftCols(k));
}

Matrix UpdateSvd::right(Eigen::Index k) const {
  return is_from_gram_ ? FactorStack(terms_, Side::rows).combined(right_.leftCols(k))
                       : Matrix(right_.leftCols(k));
}

SplitFactors split_factors(const UpdateSvd& svd, Eigen::Index k, double scaling) {
  const Eigen::Index filled = std::min<Eigen::Index>(k, svd.values().size());
  const Vector roots = (svd.values().head(filled) / std::fabs(scaling)).cwiseSqrt();
  SplitFactors factors;
  factors.b = svd.left(filled);
  factors.b *= (scaling < 0 ? -roots : roots).asDiagonal();
  Matrix right = svd.right(filled);
  right *= roots.asDiagonal();
  factors.a = right.transpose();
  if (k > filled) {
    factors.b.conservativeResizeLike(Matrix::Zero(svd.rows(), k));
    factors.a.conservativeResizeLike(Matrix::Zero(k, svd.columns()));
  }
  return factors;
}

}  // namespace lora::numbers
