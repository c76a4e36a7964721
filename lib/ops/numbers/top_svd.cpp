#include "ops/numbers/top_svd.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "lora/base/random.h"

namespace lora::numbers {
namespace {

// Below this the whole decomposition takes milliseconds.
constexpr Eigen::Index kSmall = 160;
// Columns beyond the rank in a step of the Krylov space.
constexpr Eigen::Index kSpare = 8;
constexpr double kConverged = 1e-11;
constexpr Eigen::Index kBlockRows = 64;

double energy_of(const FloatRows& matrix) {
  double sum = 0;
  for (Eigen::Index row = 0; row < matrix.rows(); ++row)
    sum += matrix.row(row).cast<double>().squaredNorm();
  return sum;
}

Matrix times(const FloatRows& matrix, const Matrix& x) {
  Matrix y(matrix.rows(), x.cols());
  for (Eigen::Index row = 0; row < matrix.rows(); row += kBlockRows) {
    const Eigen::Index count = std::min(kBlockRows, matrix.rows() - row);
    y.middleRows(row, count).noalias() = matrix.middleRows(row, count).cast<double>() * x;
  }
  return y;
}

Matrix transposed_times(const FloatRows& matrix, const Matrix& x) {
  Matrix y = Matrix::Zero(matrix.cols(), x.cols());
  for (Eigen::Index row = 0; row < matrix.rows(); row += kBlockRows) {
    const Eigen::Index count = std::min(kBlockRows, matrix.rows() - row);
    y.noalias() +=
        matrix.middleRows(row, count).cast<double>().transpose() * x.middleRows(row, count);
  }
  return y;
}

Matrix orthonormal(const Matrix& x) {
  const Eigen::HouseholderQR<Matrix> qr(x);
  return qr.householderQ() * Matrix::Identity(x.rows(), x.cols());
}

// Without what lies in the first `used` columns of the basis; twice, for the rounding of the first.
Matrix outside(const Matrix& basis, Eigen::Index used, Matrix x) {
  for (int pass = 0; pass < 2; ++pass) {
    const Matrix inside = basis.leftCols(used).transpose() * x;
    x.noalias() -= basis.leftCols(used) * inside;
  }
  return x;
}

TopSvd whole(const FloatRows& matrix, Eigen::Index rank) {
  TopSvd result;
  const bool is_tall = matrix.rows() >= matrix.cols();
  const Matrix tall =
      is_tall ? Matrix(matrix.cast<double>()) : Matrix(matrix.cast<double>().transpose());
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
  Krylov(const FloatRows& matrix, Eigen::Index rank, Eigen::Index largest)
      : matrix_(matrix),
        rank_(rank),
        basis_(matrix.rows(), largest),
        images_(matrix.cols(), largest) {}

  /// Takes in the directions of `next` that are new; false when there are none.
  bool grow(Matrix next) {
    const Eigen::Index width = next.cols();
    if (used_ > 0) next = outside(basis_, used_, std::move(next));
    const Matrix fresh = orthonormal(next);
    constexpr double kOverlap = 1e-8;
    if (used_ > 0 && (basis_.leftCols(used_).transpose() * fresh).cwiseAbs().maxCoeff() > kOverlap)
      return false;
    basis_.middleCols(used_, width) = fresh;
    images_.middleCols(used_, width) = transposed_times(matrix_, fresh);
    used_ += width;
    last_ = width;
    const auto image = images_.leftCols(used_);
    solver_.compute(image.transpose() * image);
    return true;
  }

  /// (M M^T) times the directions taken in last.
  Matrix next() const { return times(matrix_, images_.middleCols(used_ - last_, last_)); }

  double kept() const { return squares().sum(); }

  TopSvd result() const {
    const Matrix z = solver_.eigenvectors().rowwise().reverse().leftCols(rank_);
    TopSvd result;
    result.values = squares().cwiseSqrt();
    const Vector inverse = (result.values.array() > 0).select(result.values.cwiseInverse(), 0);
    result.left = basis_.leftCols(used_) * z;
    result.right = images_.leftCols(used_) * z * inverse.asDiagonal();
    return result;
  }

 private:
  Vector squares() const { return solver_.eigenvalues().reverse().head(rank_).cwiseMax(0); }

  const FloatRows& matrix_;
  Eigen::Index rank_, used_ = 0, last_ = 0;
  Matrix basis_, images_;
  Eigen::SelfAdjointEigenSolver<Matrix> solver_;
};

std::optional<TopSvd> from_krylov(const FloatRows& matrix, Eigen::Index rank, double energy,
                                  const std::string& name) {
  const Eigen::Index width = rank + kSpare;
  const Eigen::Index largest = std::min(matrix.rows(), matrix.cols()) / 2 / width * width;
  const CounterRandom random(0, stream_of("svd/" + name));
  Matrix start(matrix.cols(), width);
  std::uint64_t index = 0;
  for (double& value : start.reshaped()) value = random.normal(index++);
  Krylov space(matrix, rank, largest);
  space.grow(times(matrix, start));
  for (Eigen::Index size = 2 * width; size <= largest; size += width) {
    const double before = space.kept();
    if (!space.grow(space.next()) || space.kept() - before <= kConverged * energy)
      return space.result();
  }
  return std::nullopt;
}

}  // namespace

TopSvd top_svd(const FloatRows& matrix, std::int64_t rank, const std::string& name) {
  const Eigen::Index smaller = std::min(matrix.rows(), matrix.cols());
  const Eigen::Index count = std::min<Eigen::Index>(rank, smaller);
  const double energy = energy_of(matrix);
  std::optional<TopSvd> result;
  if (energy > 0 && smaller > kSmall && 4 * (count + kSpare) <= smaller)
    result = from_krylov(matrix, count, energy, name);
  if (!result) result = whole(matrix, count);
  result->energy = energy;
  return std::move(*result);
}

}  // namespace lora::numbers
