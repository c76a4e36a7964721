#include "ops/diff_rank.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "lora/base/random.h"

namespace lora {
namespace {

using Matrix = Eigen::MatrixXd;
using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Directions beyond those that a submatrix showed: a random range finder needs a few (Halko,
// Martinsson and Tropp 2011).
constexpr std::int64_t kSpare = 8;
constexpr std::int64_t kBlockRows = 64;
// Noise of deviation s has singular values up to about 2 s sqrt(n); anything above three times
// s sqrt(n) is not noise.
constexpr double kAboveNoise = 3;
// Below this share of the largest singular value f64 sums of squares do not resolve anything.
constexpr double kResolution = 1e-7;

struct Pair {
  const Tensor& a;
  const Tensor& b;
  std::int64_t rows, columns;

  Rows difference(std::int64_t row, std::int64_t count) const {
    Rows left(count, columns);
    Rows right(count, columns);
    const auto read = [&](const Tensor& tensor, Rows& out) {
      const std::size_t offset =
          static_cast<std::size_t>(row * columns) * bits_of(tensor.dtype) / 8;
      widen(tensor.dtype, tensor.bytes.data() + offset,
            std::span(out.data(), static_cast<std::size_t>(out.size())));
    };
    read(a, left);
    read(b, right);
    return right - left;
  }
};

std::int64_t count_above(const Eigen::VectorXd& values, double bound) {
  return (values.array() > bound).count();
}

// Singular values above `noise` of a submatrix of evenly spaced rows and columns: a proven lower
// bound of the whole's, and of a low-rank matrix in practice its rank.
std::int64_t rank_of_part(const Pair& pair, std::int64_t size, double deviation) {
  Matrix part(size, size);
  for (std::int64_t i = 0; i < size; ++i) {
    const Rows row = pair.difference(i * pair.rows / size, 1);
    for (std::int64_t j = 0; j < size; ++j) part(i, j) = row(0, j * pair.columns / size);
  }
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(part * part.transpose(),
                                                     Eigen::EigenvaluesOnly);
  const Eigen::VectorXd sigma = solver.eigenvalues().cwiseMax(0).cwiseSqrt();
  const double bound = std::max(kAboveNoise * deviation * std::sqrt(static_cast<double>(size)),
                                kResolution * sigma(size - 1));
  return count_above(sigma, bound);
}

Matrix random_directions(const std::string& name, std::int64_t rows, std::int64_t columns) {
  const CounterRandom random(0, stream_of("diff/" + name));
  Matrix directions(rows, columns);
  std::uint64_t index = 0;
  for (double& value : directions.reshaped()) value = random.normal(index++);
  return directions;
}

}  // namespace

double squared_rounding(const Tensor& tensor, std::int64_t first, std::int64_t count) {
  int precision = 0;
  int least_exponent = 0;
  switch (tensor.dtype) {
    case DType::f16:
      precision = 11, least_exponent = -14;
      break;
    case DType::bf16:
      precision = 8, least_exponent = -126;
      break;
    case DType::f32:
      precision = 24, least_exponent = -126;
      break;
    default:
      return 0;
  }
  std::vector<float> values(static_cast<std::size_t>(count));
  widen(tensor.dtype,
        tensor.bytes.data() + static_cast<std::size_t>(first) * bits_of(tensor.dtype) / 8,
        std::span(values));
  double squares = 0;
  for (const float value : values) {
    if (!std::isfinite(value)) continue;
    const int exponent = value == 0 ? least_exponent : std::max(least_exponent, std::ilogb(value));
    const double step = std::ldexp(1.0, exponent - precision + 1);
    squares += step * step;
  }
  return squares / 12;
}

std::optional<DifferenceRank> difference_rank(const std::string& name, const Tensor& a,
                                              const Tensor& b, std::int64_t largest_rank) {
  if (a.shape.size() < 2 || a.shape != b.shape || a.numel() == 0) return std::nullopt;
  const Pair pair{a, b, a.shape[0], a.numel() / a.shape[0]};
  DifferenceRank result;
  double squares = 0;
  double rounding = 0;
  for (std::int64_t row = 0; row < pair.rows; row += kBlockRows) {
    const std::int64_t count = std::min(kBlockRows, pair.rows - row);
    squares += pair.difference(row, count).squaredNorm();
    rounding += squared_rounding(b, row * pair.columns, count * pair.columns);
  }
  if (!std::isfinite(squares)) return std::nullopt;
  result.rounding = std::sqrt(rounding);
  const std::int64_t smaller = std::min(pair.rows, pair.columns);
  const double deviation = std::sqrt(rounding / static_cast<double>(a.numel()));
  const std::int64_t part = std::min(smaller, largest_rank + kSpare);
  const std::int64_t seen = rank_of_part(pair, part, deviation);
  if (seen > largest_rank || seen == smaller) {
    result.rank = seen;
    result.is_lower_bound = seen < smaller;
    result.residual = std::sqrt(squares);
    return result;
  }
  const std::int64_t width = std::min(smaller, seen + kSpare);
  const Matrix directions = random_directions(name, pair.columns, width);
  Matrix sample(pair.rows, width);
  for (std::int64_t row = 0; row < pair.rows; row += kBlockRows) {
    const std::int64_t count = std::min(kBlockRows, pair.rows - row);
    sample.middleRows(row, count).noalias() = pair.difference(row, count) * directions;
  }
  const Eigen::HouseholderQR<Matrix> qr(sample);
  const Matrix q = qr.householderQ() * Matrix::Identity(pair.rows, width);
  Matrix inside = Matrix::Zero(width, pair.columns);
  for (std::int64_t row = 0; row < pair.rows; row += kBlockRows) {
    const std::int64_t count = std::min(kBlockRows, pair.rows - row);
    inside.noalias() += q.middleRows(row, count).transpose() * pair.difference(row, count);
  }
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(inside * inside.transpose(),
                                                     Eigen::EigenvaluesOnly);
  const Eigen::VectorXd sigma = solver.eigenvalues().reverse().cwiseMax(0).cwiseSqrt();
  const double longer = static_cast<double>(std::max(pair.rows, pair.columns));
  const double bound =
      std::max(kAboveNoise * deviation * std::sqrt(longer), kResolution * sigma(0));
  result.rank = count_above(sigma, bound);
  result.singular_values.assign(sigma.begin(), sigma.end());
  double kept = 0;
  for (std::int64_t i = 0; i < result.rank; ++i) kept += sigma(i) * sigma(i);
  result.residual = std::sqrt(std::max(0.0, squares - kept));
  // Half as much again as rounding alone would leave: what is left is rounding.
  result.is_low_rank = result.rank < width && 2 * result.rank <= smaller &&
                       result.residual <= 1.5 * result.rounding + kResolution * std::sqrt(squares);
  return result;
}

}  // namespace lora
