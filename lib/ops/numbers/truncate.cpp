#include "ops/numbers/truncate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "lora/base/random.h"

namespace lora::numbers {
namespace {

constexpr std::int64_t kWidth = kPanelColumns;
// Directions beyond the wanted rank.
constexpr std::int64_t kSpare = 8;
constexpr std::int64_t kSmall = 96;
constexpr int kMostSteps = 12;
// Of the squared error: what more steps may still gain, and what a proof may leave open.
constexpr double kConverged = 1e-3, kProven = 2e-3;
constexpr double kRounding = 0x1p-20;

std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

PanelMatrix random_signs(std::int64_t rows, std::int64_t columns, const std::string& name) {
  const CounterRandom random(0, stream_of("truncate/" + name));
  PanelMatrix out(rows, columns);
  for (std::int64_t p = 0; p < out.panels(); ++p)
    for (std::int64_t i = 0; i < rows; i += 4) {
      const auto words = random.block(static_cast<std::uint64_t>((p * out.padded_rows() + i) / 4));
      for (std::int64_t row = i; row < std::min(rows, i + 4); ++row)
        for (std::int64_t j = 0; j < std::min(kWidth, columns - p * kWidth); ++j)
          out.panel(p)[row * kWidth + j] = (words[size(row - i)] >> j & 1U) != 0 ? 1.0F : -1.0F;
    }
  return out;
}

// The inverse of the triangle R with values = Q R; columns that the earlier ones span become zero.
// `is_ill` when a second turn is needed to make Q orthonormal in f32.
Matrix inverse_triangle(const Matrix& gram, bool& is_ill) {
  constexpr double kVanished = 1e-13, kIll = 1e-3;
  const Eigen::Index n = gram.rows();
  Matrix lower = Matrix::Zero(n, n);
  std::vector<bool> is_gone(static_cast<std::size_t>(n));
  for (Eigen::Index j = 0; j < n; ++j) {
    const double pivot = gram(j, j) - lower.row(j).head(j).squaredNorm();
    const bool gone = !(pivot > kVanished * gram(j, j));
    is_gone[static_cast<std::size_t>(j)] = gone;
    is_ill = is_ill || (!gone && pivot < kIll * gram(j, j));
    if (gone) {
      lower.row(j).setZero();
      lower(j, j) = 1;
      continue;
    }
    lower(j, j) = std::sqrt(pivot);
    for (Eigen::Index i = j + 1; i < n; ++i)
      lower(i, j) = (gram(i, j) - lower.row(i).head(j).dot(lower.row(j).head(j))) / lower(j, j);
  }
  Matrix inverse = lower.triangularView<Eigen::Lower>().solve(Matrix::Identity(n, n)).transpose();
  for (Eigen::Index j = 0; j < n; ++j)
    if (is_gone[static_cast<std::size_t>(j)]) inverse.col(j).setZero();
  return inverse;
}

PanelMatrix orthonormal(const PanelMatrix& values) {
  bool is_ill = false;
  PanelMatrix q = multiply(values, inverse_triangle(gram_of(values), is_ill));
  if (!is_ill) return q;
  return multiply(q, inverse_triangle(gram_of(q), is_ill));
}

// Squared length of product_i - energy_i left_i, column by column, and product scaled to the
// length of left for the next step.
std::vector<double> take_residuals(PanelMatrix& product, const PanelMatrix& left,
                                   const std::vector<double>& energies) {
  std::vector<double> residuals(energies.size());
  for (std::int64_t p = 0; p < product.panels(); ++p) {
    const std::int64_t count =
        std::min(kWidth, static_cast<std::int64_t>(energies.size()) - p * kWidth);
    float inverse[kPanelColumns] = {};
    double sums[kPanelColumns] = {};
    for (std::int64_t j = 0; j < count; ++j) {
      const double energy = energies[size(p * kWidth + j)];
      inverse[j] = energy > 0 ? static_cast<float>(1 / energy) : 0.0F;
    }
    for (std::int64_t i = 0; i < product.padded_rows(); ++i) {
      float* row = product.panel(p) + i * kWidth;
      const float* vector = left.panel(p) + i * kWidth;
      for (std::int64_t j = 0; j < kWidth; ++j) {
        row[j] *= inverse[j];
        const float off = row[j] - vector[j];
        sums[j] += static_cast<double>(off) * off;
      }
    }
    for (std::int64_t j = 0; j < count; ++j) {
      const double energy = energies[size(p * kWidth + j)];
      residuals[size(p * kWidth + j)] = sums[j] * energy * energy;
    }
  }
  return residuals;
}

// What the `rank` largest squared singular values may sum to more than the first `rank` energies.
double possible_gain(const Truncation& found, std::int64_t rank, double largest_left) {
  const std::size_t count = size(rank);
  const double coupling =
      std::accumulate(found.residuals.begin(), found.residuals.begin() + rank, 0.0);
  const double last = count == 0 ? 0 : found.energies[count - 1];
  const auto gain_at = [&](double raised) {
    double gain = coupling == 0 ? 0 : coupling / (raised - largest_left);
    for (std::size_t i = 0; i < count; ++i) gain += std::max(0.0, raised - found.energies[i]);
    return gain;
  };
  double best = std::numeric_limits<double>::infinity();
  if (last > largest_left) best = gain_at(last);
  for (double step = 1e-6; step < 64; step *= 2)
    best = std::min(best, gain_at(largest_left * (1 + step)));
  return best;
}

Truncation exact(const PanelMatrix& values) {
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(gram_of(values));
  Truncation found;
  found.is_exact = true;
  const Matrix vectors = solver.eigenvectors().rowwise().reverse();
  for (const double energy : solver.eigenvalues().reverse())
    found.energies.push_back(std::max(0.0, energy));
  found.residuals.resize(found.energies.size());
  found.right = PanelMatrix(vectors.rows(), vectors.cols());
  for (Eigen::Index i = 0; i < vectors.rows(); ++i)
    for (Eigen::Index j = 0; j < vectors.cols(); ++j)
      found.right.at(i, j) = static_cast<float>(vectors(i, j));
  found.left = multiply(values, vectors);
  return found;
}

Truncation iterate(const PanelMatrix& values, double squared_norm, std::int64_t width,
                   const RankRule& rule, const std::string& name) {
  Truncation found;
  const PanelMatrix signs = random_signs(values.columns(), width, name);
  PanelMatrix product(values.rows(), width), projected(values.columns(), width);
  multiply(values, signs, product);
  double before = 0;
  for (int step = 0; step < kMostSteps; ++step) {
    const PanelMatrix basis = orthonormal(product);
    multiply_transposed(values, basis, projected);
    const Eigen::SelfAdjointEigenSolver<Matrix> solver(gram_of(projected));
    const Matrix turn = solver.eigenvectors().rowwise().reverse();
    found.energies.clear();
    for (const double energy : solver.eigenvalues().reverse())
      found.energies.push_back(std::max(0.0, energy));
    found.left = multiply(basis, turn);
    found.right = multiply(projected, turn);
    multiply(values, found.right, product);
    found.residuals = take_residuals(product, found.left, found.energies);
    const std::int64_t rank = rule(found.energies);
    if (rank + kSpare > width) break;  // a wider sketch is needed anyway
    const double kept = std::accumulate(found.energies.begin(), found.energies.begin() + rank, 0.0);
    const double enough = std::max(kConverged * (squared_norm - kept), kRounding * squared_norm);
    // Gains shrink from step to step: after a small one no large one comes.
    const double gained = kept - std::exchange(before, kept);
    if (gained <= enough || possible_gain(found, rank, found.energies[size(rank)]) <= enough) break;
  }
  return found;
}

}  // namespace

Truncation truncate(const PanelMatrix& values, double squared_norm, const RankRule& rule,
                    const std::string& name) {
  const std::int64_t least = values.columns();
  for (std::int64_t width = (rule({}) + kSpare + kWidth - 1) / kWidth * kWidth;; width *= 2) {
    if (least <= kSmall || 3 * width > least) return exact(values);
    Truncation found = iterate(values, squared_norm, width, rule, name);
    if (rule(found.energies) + kSpare <= width) return found;
  }
}

double least_squared_error(const Truncation& found, std::int64_t rank, PanelMatrix& error) {
  if (found.is_exact)
    return std::accumulate(found.energies.begin() + rank, found.energies.end(), 0.0);
  const double squares = error.squared_norm();
  const double rounding =
      kRounding * std::accumulate(found.energies.begin(), found.energies.begin() + rank, squares);
  double gain = possible_gain(found, rank, squares);
  // The factorisation costs more than all the rest: only where it can say something.
  if (gain > kProven * squares && rounding < squares) {
    double terms = 0;
    const PanelMatrix gram = lower_gram(error, terms);
    const double estimate = found.energies[size(rank)];
    const double spread = terms * 0x1p-24 * squares;
    const double allowance = cholesky_allowance(gram.rows());
    for (const double factor : {1.02, 1.1, 1.4, 2.0, 4.0}) {
      const double shift = factor * estimate;
      PanelMatrix tried = gram;
      if (!is_below(tried, shift)) continue;
      const double proven = shift * (1 + allowance) + spread;
      gain = std::min(gain, possible_gain(found, rank, proven));
      break;
    }
  }
  return std::max(0.0, squares - gain - rounding);
}

}  // namespace lora::numbers
