#include "ops/numbers/update_svd.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "ops/numbers/combine.h"

namespace lora::numbers {
namespace {

// Few rank rows cost nothing either way, and the exact way is exact.
constexpr std::int64_t kFewRows = 8;
// Rank rows of unit length with pivots below this are too close to each other to be inverted.
constexpr double kLeastPivot = 1e-5;
// How far from orthonormal the vectors may be that the inverse gives.
constexpr double kOrthonormal = 1e-9;

// One factor of every term, as vectors of `rank` numbers.
class Stack {
 public:
  Stack(const std::vector<UpdateFactor>& terms, Side side) : side_(side) {
    for (const UpdateFactor& term : terms) {
      views_.emplace_back(side == Side::rows ? term.a : term.b);
      first_.push_back(rank_);
      rank_ += rank_of(views_.back(), side);
      for (std::int64_t i = first_.back(); i < rank_; ++i)
        scales_.push_back(side == Side::rows ? 1 : term.scaling);
    }
    length_ = length_of(views_.front(), side);
  }

  std::int64_t length() const { return length_; }

  // Of the scaled vectors.
  Matrix gram() const {
    const std::size_t count = views_.size();
    std::vector<Panel> panels;
    std::vector<RunReader> readers;
    std::vector<Gram> sums;
    std::int64_t step = length_;
    for (const MatrixView& view : views_) {
      panels.emplace_back(rank_of(view, side_));
      readers.emplace_back(view);
      step = std::min(step, panels.back().capacity());
    }
    for (std::size_t i = 0; i < count; ++i)
      for (std::size_t j = i; j < count; ++j)
        sums.emplace_back(rank_of(views_[i], side_), rank_of(views_[j], side_));
    for (std::int64_t k = 0; k < length_; k += step) {
      for (std::size_t i = 0; i < count; ++i)
        panels[i].fill(views_[i], side_, k, std::min(step, length_ - k), readers[i]);
      for (std::size_t i = 0, at = 0; i < count; ++i)
        for (std::size_t j = i; j < count; ++j, ++at)
          if (i == j) {
            sums[at].add(panels[i]);
          } else {
            sums[at].add(panels[i], panels[j]);
          }
    }
    Matrix result(rank_, rank_);
    for (std::size_t i = 0, at = 0; i < count; ++i)
      for (std::size_t j = i; j < count; ++j, ++at) {
        if (i == j) sums[at].mirror();
        const Matrix part = matrix_of(sums[at]);
        result.block(first_[i], first_[j], part.rows(), part.cols()) = part;
        result.block(first_[j], first_[i], part.cols(), part.rows()) = part.transpose();
      }
    const Vector scales = scale_vector();
    return scales.asDiagonal() * result * scales.asDiagonal();
  }

  // All vectors times coefficients [rank, k].
  Matrix combined(const Matrix& coefficients) const {
    Matrix sums = Matrix::Zero(length_, coefficients.cols());
    const Matrix scaled = scale_vector().asDiagonal() * coefficients;
    for (std::size_t i = 0; i < views_.size(); ++i)
      combine(views_[i], side_, scaled.middleRows(first_[i], rank_of(views_[i], side_)), sums);
    return sums;
  }

  Matrix dense() const { return combined(Matrix::Identity(rank_, rank_)); }

 private:
  Vector scale_vector() const {
    return Eigen::Map<const Vector>(scales_.data(), static_cast<Eigen::Index>(scales_.size()));
  }

  Side side_;
  std::int64_t rank_ = 0, length_ = 0;
  std::vector<MatrixView> views_;
  std::vector<std::int64_t> first_;
  std::vector<double> scales_;
};

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
  for (const UpdateFactor& term : terms_) rank_ += term.a.shape.at(0);
  rows_ = terms_.empty() ? 0 : terms_.front().b.shape.at(0);
  columns_ = terms_.empty() ? 0 : terms_.front().a.shape.at(1);
  if (terms_.empty()) return;
  is_from_gram_ = rank_ > kFewRows && 2 * rank_ <= std::min(rows_, columns_) && try_gram();
  if (!is_from_gram_) decompose();
}

bool UpdateSvd::try_gram() {
  const Matrix a = Stack(terms_, Side::rows).gram();
  const Matrix b = Stack(terms_, Side::columns).gram();
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
  const Orthogonal b(Stack(terms_, Side::columns).dense());
  const Orthogonal a(Stack(terms_, Side::rows).dense());
  const Matrix core = b.r * a.r.transpose();
  const Eigen::BDCSVD<Matrix> svd(core, Eigen::ComputeThinU | Eigen::ComputeThinV);
  values_ = svd.singularValues();
  left_ = b.times(svd.matrixU());
  right_ = a.times(svd.matrixV());
}

Matrix UpdateSvd::left(Eigen::Index k) const {
  return is_from_gram_ ? Stack(terms_, Side::columns).combined(left_.leftCols(k))
                       : Matrix(left_.leftCols(k));
}

Matrix UpdateSvd::right(Eigen::Index k) const {
  return is_from_gram_ ? Stack(terms_, Side::rows).combined(right_.leftCols(k))
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
