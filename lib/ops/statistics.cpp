#include "lora/ops/statistics.h"

#include <Eigen/Dense>
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <span>

namespace lora {
namespace {

using Matrix = Eigen::MatrixXd;
using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Matrix matrix_of(const Tensor& tensor) {
  const std::vector<double> values = tensor.to_f64();
  return Eigen::Map<const RowMajor>(values.data(), tensor.shape.at(0), tensor.shape.at(1));
}

// R of a QR factorisation. For well-conditioned tall matrices by the Cholesky factor of the Gram
// matrix, which is several times faster; the condition bound keeps its error, about eps * cond^2,
// below 1e-10, and everything else takes Householder reflections.
Matrix upper_factor(const Matrix& tall) {
  constexpr double kWellConditioned = 1e-3;
  if (tall.rows() > tall.cols()) {
    Matrix gram = Matrix::Zero(tall.cols(), tall.cols());
    gram.selfadjointView<Eigen::Lower>().rankUpdate(tall.transpose());
    const Eigen::LLT<Matrix> cholesky(gram);
    if (cholesky.info() == Eigen::Success) {
      Matrix factor = cholesky.matrixU();
      const auto diagonal = factor.diagonal().array();
      if (diagonal.minCoeff() > kWellConditioned * diagonal.maxCoeff()) return factor;
    }
  }
  const Eigen::Index k = std::min(tall.rows(), tall.cols());
  const Eigen::HouseholderQR<Matrix> qr(tall);
  return qr.matrixQR().topRows(k).triangularView<Eigen::Upper>();
}

// The r x r (or smaller) matrix with the singular values of b . a.
Matrix core_of(const Matrix& b, const Matrix& a) {
  return upper_factor(b) * upper_factor(a.transpose()).transpose();
}

constexpr std::int64_t kBlock = 4096;
constexpr std::size_t kLanes = 4;
using Lanes = std::array<double, kLanes>;

double total(const Lanes& lanes) { return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]); }

// Sums of a stream of values. Squares of deviations are taken from the first value instead of the
// mean, so that one pass is enough and nothing cancels for values far from zero; the four lanes let
// the compiler vectorise without reordering anything.
struct Moments {
  double shift = 0;
  Lanes sum{}, squares{}, shifted_squares{};
  double min = std::numeric_limits<double>::infinity();
  double max = -std::numeric_limits<double>::infinity();

  void add(std::span<const double> values) {
    std::size_t i = 0;
    for (; i + kLanes <= values.size(); i += kLanes)
      for (std::size_t lane = 0; lane < kLanes; ++lane) add(values[i + lane], lane);
    for (std::size_t lane = 0; i < values.size(); ++i, ++lane) add(values[i], lane);
    for (const double value : values) {
      min = value < min ? value : min;
      max = value > max ? value : max;
    }
  }

 private:
  void add(double value, std::size_t lane) {
    const double above = value - shift;
    sum[lane] += above;
    shifted_squares[lane] += above * above;
    squares[lane] += value * value;
  }
};

bool all_finite(std::span<const double> values) {
  Lanes difference{};
  std::size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes)
    for (std::size_t lane = 0; lane < kLanes; ++lane)
      difference[lane] += values[i + lane] - values[i + lane];
  for (; i < values.size(); ++i) difference[0] += values[i] - values[i];
  return total(difference) == 0;  // x - x is NaN for NaN and infinities
}

void drop_non_finite(std::span<double> values, std::int64_t start, double shift,
                     TensorStatistics& result) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    (std::isnan(values[i]) ? result.nan_count : result.inf_count) += 1;
    if (result.first_non_finite < 0) result.first_non_finite = start + static_cast<std::int64_t>(i);
    values[i] = shift;
  }
}

Eigen::VectorXd singular_values(const Matrix& core) {
  return Eigen::JacobiSVD<Matrix>(core).singularValues();
}

// Orthonormal basis of the output space of b . a.
Matrix output_basis(const Matrix& b, const Matrix& a) {
  const Matrix spanning = b * upper_factor(a.transpose()).transpose();
  Eigen::ColPivHouseholderQR<Matrix> qr(spanning);
  qr.setThreshold(1e-12);
  const Eigen::Index rank = qr.rank();
  Matrix basis = Matrix::Identity(spanning.rows(), rank);
  basis.applyOnTheLeft(qr.householderQ());
  return basis;
}

// Degrees. sin of the largest principal angle is the norm of the part of one basis outside the
// other; it is exact for small angles, where the arc cosine is not.
double largest_angle(const Matrix& first, const Matrix& second) {
  const Matrix& small = first.cols() <= second.cols() ? first : second;
  const Matrix& large = first.cols() <= second.cols() ? second : first;
  if (small.cols() == 0) return 0;
  const Matrix outside = small - large * (large.transpose() * small);
  const double sine = singular_values(upper_factor(outside))(0);
  return std::asin(std::min(1.0, sine)) * 180 / std::numbers::pi;
}

}  // namespace

TensorStatistics statistics_of(const Tensor& tensor) {
  TensorStatistics result;
  Moments moments;
  const std::int64_t count = tensor.numel();
  std::array<double, kBlock> block;
  for (std::int64_t start = 0; start < count; start += kBlock) {
    const auto size = static_cast<std::size_t>(std::min(kBlock, count - start));
    const std::span<double> values(block.data(), size);
    widen(tensor.dtype,
          tensor.bytes.data() + static_cast<std::size_t>(start) * bits_of(tensor.dtype) / 8,
          values);
    if (start == 0) moments.shift = std::isfinite(values[0]) ? values[0] : 0;
    if (!all_finite(values)) drop_non_finite(values, start, moments.shift, result);
    moments.add(values);
  }
  if (count == 0 && !is_float(tensor.dtype)) widen(tensor.dtype, nullptr, std::span<double>());
  // What was dropped stands in the blocks as the shift, which adds nothing to the moments.
  const std::int64_t dropped = result.nan_count + result.inf_count;
  result.count = count - dropped;
  result.is_all_zero = dropped == 0 && moments.min == 0 && moments.max == 0;
  if (result.count == 0) {
    result.is_all_zero = count == 0;
    return result;
  }
  const auto n = static_cast<double>(result.count);
  const double mean_above_shift = total(moments.sum) / n;
  result.mean = moments.shift + mean_above_shift;
  result.min = moments.min;
  result.max = moments.max;
  result.norm = std::sqrt(std::max(
      0.0, total(moments.squares) - static_cast<double>(dropped) * moments.shift * moments.shift));
  const double deviations =
      std::max(0.0, total(moments.shifted_squares) - n * mean_above_shift * mean_above_shift);
  result.std = result.count > 1 ? std::sqrt(deviations / (n - 1)) : 0;
  return result;
}

UpdateStatistics update_statistics(const LoraModule& module) {
  UpdateStatistics result;
  const Matrix a = matrix_of(module.a);
  const Matrix b = matrix_of(module.b);
  if (!a.allFinite() || !b.allFinite() || a.size() == 0 || b.size() == 0) return result;
  const Eigen::VectorXd sigma = singular_values(core_of(b, a)) * std::fabs(module.scaling);
  result.singular_values.assign(sigma.data(), sigma.data() + sigma.size());
  result.norm = sigma.norm();
  const double n = static_cast<double>(b.rows()) * static_cast<double>(a.cols());
  result.mean = module.scaling * b.colwise().sum().dot(a.rowwise().sum()) / n;
  const double deviations =
      std::max(0.0, result.norm * result.norm - n * result.mean * result.mean);
  result.std = n > 1 ? std::sqrt(deviations / (n - 1)) : 0;
  const double total = sigma.sum();
  if (total > 0) {
    double entropy = 0;
    for (const double value : sigma)
      if (value > 0) entropy -= value / total * std::log(value / total);
    result.effective_rank = std::exp(entropy);
    result.stable_rank = result.norm * result.norm / (sigma(0) * sigma(0));
  }
  return result;
}

UpdateDistance update_distance(const LoraModule& first, const LoraModule& second) {
  UpdateDistance result;
  const Matrix a1 = matrix_of(first.a);
  const Matrix a2 = matrix_of(second.a);
  const Matrix b1 = matrix_of(first.b) * first.scaling;
  const Matrix b2 = matrix_of(second.b) * second.scaling;
  result.norm_a = core_of(b1, a1).norm();
  result.norm_b = core_of(b2, a2).norm();
  // dW_a - dW_b = [B1, -B2] . [A1; A2]: one product of stacked factors, no cancellation of squares.
  Matrix stacked_b(b1.rows(), b1.cols() + b2.cols());
  stacked_b << b1, -b2;
  Matrix stacked_a(a1.rows() + a2.rows(), a1.cols());
  stacked_a << a1, a2;
  result.difference = core_of(stacked_b, stacked_a).norm();
  if (result.norm_a > 0) {
    result.relative = result.difference / result.norm_a;
  } else {
    result.relative = result.norm_b > 0 ? std::numeric_limits<double>::infinity() : 0;
  }
  if (result.norm_a > 0 && result.norm_b > 0) {
    const double inner = ((b1.transpose() * b2) * (a2 * a1.transpose())).trace();
    result.cosine = std::clamp(inner / (result.norm_a * result.norm_b), -1.0, 1.0);
    result.largest_angle = largest_angle(output_basis(b1, a1), output_basis(b2, a2));
  } else {
    result.cosine = result.norm_a == result.norm_b ? 1 : 0;
  }
  return result;
}

}  // namespace lora
