#include "ops/numbers/top_svd.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "lora/base/random.h"
#include "ops/numbers/combine.h"

namespace lora::numbers {
namespace {

// Below this the whole decomposition takes milliseconds.
constexpr Eigen::Index kSmall = 160;
// Columns beyond the rank in a step of the Krylov space.
constexpr Eigen::Index kSpare = 8;
constexpr double kConverged = 1e-11, kBackward = 1e-8;

// Calls use(row, values in f64) row by row.
template <typename Use>
void for_rows(const MatrixView& matrix, const Use& use) {
  RunReader reader(matrix);
  for (std::int64_t row = 0; row < matrix.rows; ++row)
    if (matrix.dtype == DType::f64)
      use(row, Eigen::Map<const Eigen::RowVectorXd>(reader.take<double>(row, 0, matrix.columns),
                                                    matrix.columns));
    else
      use(row, Eigen::Map<const Eigen::RowVectorXf>(reader.take<float>(row, 0, matrix.columns),
                                                    matrix.columns)
                   .cast<double>());
}

double energy_of(const MatrixView& matrix) {
  double sum = 0;
  for_rows(matrix, [&](std::int64_t, const auto& values) { sum += values.squaredNorm(); });
  return sum;
}

Matrix times(const MatrixView& matrix, const Matrix& x) {
  Matrix y = Matrix::Zero(matrix.rows, x.cols());
  combine(matrix, Side::columns, x, y);
  return y;
}

Matrix transposed_times(const MatrixView& matrix, const Matrix& x) {
  Matrix y = Matrix::Zero(matrix.columns, x.cols());
  combine(matrix, Side::rows, x, y);
  return y;
}

Matrix orthonormal(const Matrix& x) {
  const Eigen::HouseholderQR<Matrix> qr(x);
  return qr.householderQ() * Matrix::Identity(x.rows(), x.cols());
}

TopSvd whole(const MatrixView& matrix, Eigen::Index rank) {
  TopSvd result;
  const bool is_tall = matrix.rows >= matrix.columns;
  Matrix tall(std::max(matrix.rows, matrix.columns), std::min(matrix.rows, matrix.columns));
  for_rows(matrix, [&](std::int64_t row, const auto& values) {
    if (is_tall)
      tall.row(row) = values;
    else
      tall.col(row) = values.transpose();
  });
  const Eigen::HouseholderQR<Matrix> qr(tall);
  const Matrix core = qr.matrixQR().topRows(tall.cols()).template triangularView<Eigen::Upper>();
  const Eigen::BDCSVD<Matrix> svd(core, Eigen::ComputeThinU | Eigen::ComputeThinV);
  result.values = svd.singularValues().head(rank);
  Matrix wide = Matrix::Zero(tall.rows(), rank);
  wide.topRows(tall.cols()) = svd.matrixU().leftCols(rank);
  const Matrix long_side = qr.householderQ() * wide;
  const Matrix short_side = svd.matrixV().leftCols(rank);
  result.left = is_tall ? long_side : short_side;
  result.right = is_tall ? short_side : long_side;
  return result;
}

// The Krylov space Q = {X, (M M^T) X, (M M^T)^2 X, ...} and what Rayleigh and Ritz find in it: with
// T = M^T Q the values are those of T, the right vectors T z / s, the left ones Q z.
class Krylov {
 public:
  Krylov(const MatrixView& matrix, Eigen::Index rank, Eigen::Index largest)
      : matrix_(matrix),
        rank_(rank),
        basis_(matrix.rows, largest),
        images_(matrix.columns, largest),
        gram_(largest, largest) {}

  /// Takes in the directions of `next`, which lie outside the space; false when there are none.
  bool grow(const Matrix& next) {
    const Eigen::Index width = next.cols();
    const Matrix fresh = orthonormal(next);
    constexpr double kOverlap = 1e-8;
    if (used_ > 0 && (basis_.leftCols(used_).transpose() * fresh).cwiseAbs().maxCoeff() > kOverlap)
      return false;
    basis_.middleCols(used_, width) = fresh;
    images_.middleCols(used_, width) = transposed_times(matrix_, fresh);
    used_ += width;
    last_ = width;
    gram_.block(used_ - width, 0, width, used_).noalias() =
        images_.middleCols(used_ - width, width).transpose() * images_.leftCols(used_);
    return true;
  }

  Eigen::Index size() const { return used_; }

  void decompose() { solver_.compute(gram_.topLeftCorner(used_, used_)); }

  /// What (M M^T) makes of the directions taken in last, without what lies in the space; twice, for
  /// the rounding of the first.
  Matrix next() const {
    Matrix x = times(matrix_, images_.middleCols(used_ - last_, last_));
    for (int pass = 0; pass < 2; ++pass) {
      const Matrix inside = basis_.leftCols(used_).transpose() * x;
      x.noalias() -= basis_.leftCols(used_) * inside;
    }
    return x;
  }

  double kept() const { return squares().sum(); }

  /// Whether M M^T of the wanted vectors leaves the space by no more than `kBackward` allows: what
  /// `next` found outside is all there is, because the earlier directions stay inside.
  bool has_vectors(const Matrix& next) const {
    const Vector values = squares().cwiseSqrt();
    constexpr double kLeast = 1e-6;  // of a matrix of lower rank the last value is rounding
    const double last = std::max(values(rank_ - 1), kLeast * values(0));
    return (next * wanted().bottomRows(last_)).norm() <= kBackward * values(0) * last;
  }

  TopSvd result() const {
    const Matrix z = wanted();
    TopSvd result;
    result.values = squares().cwiseSqrt();
    const Vector inverse = (result.values.array() > 0).select(result.values.cwiseInverse(), 0);
    result.left = basis_.leftCols(used_) * z;
    result.right = images_.leftCols(used_) * z * inverse.asDiagonal();
    return result;
  }

 private:
  Vector squares() const { return solver_.eigenvalues().reverse().head(rank_).cwiseMax(0); }
  Matrix wanted() const { return solver_.eigenvectors().rowwise().reverse().leftCols(rank_); }

  const MatrixView& matrix_;
  Eigen::Index rank_, used_ = 0, last_ = 0;
  Matrix basis_, images_, gram_;
  Eigen::SelfAdjointEigenSolver<Matrix> solver_;
};

std::optional<TopSvd> from_krylov(const MatrixView& matrix, Eigen::Index rank, double energy,
                                  const std::string& name, Accuracy accuracy) {
  const Eigen::Index width = rank + kSpare;
  const Eigen::Index largest = std::min(matrix.rows, matrix.columns) / 2 / width * width;
  const CounterRandom random(0, stream_of("svd/" + name));
  Matrix start(matrix.columns, width);
  std::uint64_t index = 0;
  for (double& value : start.reshaped()) value = random.normal(index++);
  Krylov space(matrix, rank, largest);
  space.grow(times(matrix, start));
  space.decompose();
  double before = space.kept();
  for (Eigen::Index decomposed = width; space.size() + width <= largest;) {
    const Matrix next = space.next();
    // The small problem is decomposed when it is a quarter larger: its costs stay a fraction.
    if (accuracy == Accuracy::vectors && 4 * space.size() >= 5 * decomposed) {
      space.decompose();
      decomposed = space.size();
      if (space.has_vectors(next)) return space.result();
    }
    const bool has_grown = space.grow(next);
    if (has_grown && accuracy == Accuracy::vectors) continue;
    space.decompose();
    if (!has_grown || space.kept() - before <= kConverged * energy) return space.result();
    before = space.kept();
  }
  return std::nullopt;
}

}  // namespace

TopSvd top_svd(const MatrixView& matrix, std::int64_t rank, const std::string& name,
               Accuracy accuracy) {
  const Eigen::Index smaller = std::min(matrix.rows, matrix.columns);
  const Eigen::Index count = std::min<Eigen::Index>(rank, smaller);
  const double energy = energy_of(matrix);
  std::optional<TopSvd> result;
  if (energy > 0 && smaller > kSmall && 4 * (count + kSpare) <= smaller)
    result = from_krylov(matrix, count, energy, name, accuracy);
  if (!result) result = whole(matrix, count);
  result->energy = energy;
  return std::move(*result);
}

}  // namespace lora::numbers
