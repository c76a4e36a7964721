#include "ops/numbers/product.h"

#include <algorithm>
#include <cmath>

#include "ops/numbers/symmetric.h"

namespace lora::numbers {
namespace {

constexpr std::int64_t kFewestForDirection = 8;
constexpr double kSquaredSine = 1e-12;

// Pairs that point in one direction in the random factor. Where the trained columns oppose each
// other the second is the stored start of the first, subtracted: PEFT writes PiSSA and OLoRA
// adapters as plain LoRA that way.
std::vector<std::pair<std::int64_t, std::int64_t>> duplicates_of(const Matrix& random,
                                                                 const Matrix& trained) {
  std::vector<std::pair<std::int64_t, std::int64_t>> pairs;
  for (Eigen::Index i = 0; i < random.rows(); ++i) {
    for (Eigen::Index j = i + 1; j < random.rows(); ++j) {
      const double lengths = random(i, i) * random(j, j);
      if (lengths == 0) continue;
      const double inner = random(i, j);
      if (lengths - inner * inner > kSquaredSine * lengths) continue;
      if (inner * trained(i, j) < 0) continue;
      pairs.emplace_back(i, j);
    }
  }
  return pairs;
}

Matrix dense_matrix(const Tensor& tensor) {
  using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const std::vector<double> values = tensor.to_f64();
  return Eigen::Map<const Rows>(values.data(), tensor.shape.at(0), tensor.shape.at(1));
}

ProductFigures figures_of_small(const UpdateFactor& factor) {
  ProductFigures result;
  const Matrix a = dense_matrix(factor.a);
  const Matrix b = dense_matrix(factor.b);
  const Matrix update = factor.scaling * (b * a);
  result.elements = static_cast<double>(update.size());
  result.sum = update.sum();
  result.squared_norm = update.squaredNorm();
  const Matrix wide = update.rows() < update.cols() ? update : Matrix(update.transpose());
  const Matrix gram = wide * wide.transpose();
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(gram, Eigen::EigenvaluesOnly);
  const Vector sigma = solver.eigenvalues().reverse().cwiseMax(0).cwiseSqrt();
  result.singular_values.assign(sigma.begin(), sigma.end());
  if (result.squared_norm == 0) return result;
  for (Eigen::Index i = 0; i < a.rows(); ++i)
    if (a.row(i).isZero(0) || b.col(i).isZero(0)) result.dead.push_back(i);
  return result;
}

}  // namespace

ProductFigures figures_of(const Gram& a, const Gram& b, double scaling, std::int64_t rows,
                          std::int64_t columns, bool is_b_random) {
  ProductFigures result;
  result.elements = static_cast<double>(rows) * static_cast<double>(columns);
  const Matrix gram_a = matrix_of(a);
  const Matrix gram_b = matrix_of(b);
  const Eigen::Index rank = gram_a.rows();
  result.squared_norm = scaling * scaling * squared_norm_of(gram_a, gram_b);
  result.singular_values.assign(static_cast<std::size_t>(rank), 0.0);
  if (result.squared_norm == 0) return result;
  const Vector sigma = std::fabs(scaling) * singular_values_of(gram_a, gram_b);
  std::copy(sigma.begin(), sigma.end(), result.singular_values.begin());
  for (Eigen::Index i = 0; i < rank; ++i)
    result.sum +=
        scaling * a.sums[static_cast<std::size_t>(i)] * b.sums[static_cast<std::size_t>(i)];
  for (Eigen::Index i = 0; i < rank; ++i)
    if (gram_a(i, i) == 0 || gram_b(i, i) == 0) result.dead.push_back(i);
  if ((is_b_random ? rows : columns) >= kFewestForDirection)
    result.duplicates = is_b_random ? duplicates_of(gram_b, gram_a) : duplicates_of(gram_a, gram_b);
  return result;
}

bool is_thin(const MatrixView& a, const MatrixView& b) {
  return a.rows <= std::min(a.columns, b.rows);
}

std::optional<ProductFigures> figures_of(const UpdateFactor& factor, bool is_b_random) {
  const MatrixView a(factor.a);
  const MatrixView b(factor.b);
  if (factor.a.numel() == 0 || factor.b.numel() == 0) return std::nullopt;
  if (!is_thin(a, b)) {
    const bool is_finite = statistics_of(factor.a).first_non_finite < 0 &&
                           statistics_of(factor.b).first_non_finite < 0;
    return is_finite ? std::optional(figures_of_small(factor)) : std::nullopt;
  }
  FactorSums left = sum_vectors(a, Side::rows, 0, a.columns);
  FactorSums right = sum_vectors(b, Side::columns, 0, b.rows);
  if (left.tally.first_non_finite >= 0 || right.tally.first_non_finite >= 0) return std::nullopt;
  left.gram.mirror();
  right.gram.mirror();
  return figures_of(left.gram, right.gram, factor.scaling, b.rows, a.columns, is_b_random);
}

UpdateStatistics add_up(const std::vector<ProductFigures>& products, std::int64_t rank) {
  UpdateStatistics result;
  double squares = 0;
  double sum = 0;
  double elements = 0;
  std::int64_t first = 0;
  for (const ProductFigures& product : products) {
    squares += product.squared_norm;
    sum += product.sum;
    elements += product.elements;
    result.singular_values.insert(result.singular_values.end(), product.singular_values.begin(),
                                  product.singular_values.end());
    for (const std::int64_t row : product.dead) result.dead_rank_rows.push_back(first + row);
    for (const auto& [i, j] : product.duplicates)
      result.duplicate_rank_rows.emplace_back(first + i, first + j);
    first += rank;
  }
  std::sort(result.singular_values.begin(), result.singular_values.end(), std::greater<>());
  result.norm = std::sqrt(squares);
  if (elements > 0) result.mean = sum / elements;
  const double deviations = std::max(0.0, squares - elements * result.mean * result.mean);
  result.std = elements > 1 ? std::sqrt(deviations / (elements - 1)) : 0;
  double total = 0;
  for (const double value : result.singular_values) total += value;
  if (total <= 0) return result;
  double entropy = 0;
  for (const double value : result.singular_values)
    if (value > 0) entropy -= value / total * std::log(value / total);
  const double largest = result.singular_values.front() * result.singular_values.front();
  result.effective_rank = std::exp(entropy);
  result.stable_rank = squares / largest;
  result.concentration = std::min(1.0, largest / squares);
  return result;
}

}  // namespace lora::numbers
