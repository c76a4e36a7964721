#include "ops/numbers/truncate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "ops/numbers/orthonormal.h"

namespace lora::numbers {
namespace {

constexpr std::int64_t kWidth = kPanelColumns;
// Directions beyond the wanted rank.
constexpr std::int64_t kSpare = 8;
constexpr std::int64_t kSmall = 96;
// Searches of a larger share of the columns cost more than all eigenvalues, with their vectors or
// without.
constexpr std::int64_t kShare = 3, kValueShare = 4;
constexpr int kMostSteps = 12;
// Of the squared error: what more steps may still gain, and what a proof may leave open.
constexpr double kConverged = 1e-3, kProven = 2e-3;
constexpr double kRounding = 0x1p-20, kUnit = 0x1p-24;
// Of the squared error: what the rounding of a Gram matrix may take from a proof.
constexpr double kBlurred = 0x1p-8;

std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

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

std::vector<double> energies_of(const Eigen::SelfAdjointEigenSolver<Matrix>& solver) {
  std::vector<double> energies;
  for (const double energy : solver.eigenvalues().reverse())
    energies.push_back(std::max(0.0, energy));
  return energies;
}

// The eigenvectors of a small matrix, those of the largest eigenvalues first.
Matrix descending(const Matrix& small, std::vector<double>& energies) {
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(small);
  energies = energies_of(solver);
  return solver.eigenvectors().rowwise().reverse();
}

double first_of(const std::vector<double>& energies, std::int64_t count) {
  return std::accumulate(energies.begin(), energies.begin() + count, 0.0);
}

Truncation exact(const PanelMatrix& values, Purpose purpose) {
  Truncation found;
  found.is_exact = true;
  if (purpose == Purpose::energies) {  // a fifth of the time
    found.energies =
        energies_of(Eigen::SelfAdjointEigenSolver<Matrix>(gram_of(values), Eigen::EigenvaluesOnly));
    return found;
  }
  const Matrix vectors = descending(gram_of(values), found.energies);
  found.residuals.resize(found.energies.size());
  found.right = PanelMatrix(vectors.rows(), vectors.cols());
  for (Eigen::Index i = 0; i < vectors.rows(); ++i)
    for (Eigen::Index j = 0; j < vectors.cols(); ++j)
      found.right.at(i, j) = static_cast<float>(vectors(i, j));
  found.left = multiply(values, vectors);
  return found;
}

// What the rounding of a Gram matrix may add to the sum of as many eigenvalues, by Cauchy and
// Schwarz; twice, since those of the found vectors are rounded too.
double gram_rounding(std::int64_t rank, std::int64_t rows, double squared_norm) {
  return 2 * std::sqrt(static_cast<double>(rank)) * lower_gram_terms(rows) * kUnit * squared_norm;
}

// Whether products of two values are numbers of f32 that its relative precision says all about.
bool has_plain_products(const PanelMatrix& values, double squared_norm) {
  const double elements =
      static_cast<double>(values.rows()) * static_cast<double>(values.columns());
  return squared_norm > elements * 0x1p-100 && squared_norm < 0x1p+120;
}

// Orthogonal iteration for one width. It begins on the matrix; where the first step shows that
// much will be left out, it goes on in the Gram matrix, which costs less a step and which the proof
// needs anyway.
class Search {
 public:
  Search(const PanelMatrix& values, double squared_norm, std::int64_t width, const RankRule& rule)
      : values_(values),
        squared_norm_(squared_norm),
        width_(width),
        rule_(rule),
        product_(PanelMatrix::unset(values.rows(), width)),
        projected_(PanelMatrix::unset(values.columns(), width)) {}

  /// `gram` is that of the values where an earlier search, too narrow, made it.
  Truncation run(const std::string& name, Purpose purpose, PanelMatrix& gram) {
    const std::int64_t columns = values_.columns();
    const bool is_gram_cheap = (purpose == Purpose::proof || columns <= kCheap * width_) &&
                               has_plain_products(values_, squared_norm_);
    multiply(values_, random_signs(columns, width_, name), product_);
    for (int step = 0; step < kMostSteps; ++step) {
      if (is_in_gram_)
        step_in(gram);
      else
        step_in_values();
      const std::int64_t rank = rule_(found_.energies);
      if (rank + kSpare > width_) return std::move(found_);  // a wider sketch is needed anyway
      const double kept = first_of(found_.energies, rank);
      const bool is_rough =
          gram_rounding(rank, values_.rows(), squared_norm_) < kBlurred * (squared_norm_ - kept);
      if (step == 0 && is_rough && is_gram_cheap) {
        is_in_gram_ = true;
        before_ = kept;
        if (gram.columns() == 0) gram = lower_gram(values_);
        // One step without a look at what it gains: never the last.
        multiply_symmetric(gram, found_.right, projected_);
        continue;
      }
      if (!is_in_gram_) take_product();
      if (!has_converged(rank, kept)) continue;
      // Without a step left, the Gram matrix has to do.
      if (!is_in_gram_ || is_rough || step + 1 == kMostSteps) break;
      is_in_gram_ = false;
      multiply(values_, found_.right, product_);
    }
    if (is_in_gram_) take_left(gram);
    return std::move(found_);
  }

 private:
  // Steps on the values cost four products of the width; one Gram matrix pays for about five.
  static constexpr std::int64_t kCheap = 20;

  void step_in_values() {
    const PanelMatrix basis = orthonormal(product_);
    multiply_transposed(values_, basis, projected_);
    const Matrix turn = descending(gram_of(projected_), found_.energies);
    found_.left = multiply(basis, turn);
    found_.right = multiply(projected_, turn);
  }

  void take_product() {
    multiply(values_, found_.right, product_);
    found_.residuals = take_residuals(product_, found_.left, found_.energies);
  }

  void step_in(const PanelMatrix& gram) {
    const PanelMatrix basis = orthonormal(projected_);
    PanelMatrix image = PanelMatrix::unset(basis.rows(), width_);
    multiply_symmetric(gram, basis, image);
    const Matrix turn = descending(gram_of(basis, image), found_.energies);
    found_.right = multiply(basis, turn);
    projected_ = multiply(image, turn);
    found_.residuals = take_residuals(projected_, found_.right, found_.energies);
  }

  bool has_converged(std::int64_t rank, double kept) {
    const double enough = std::max(kConverged * (squared_norm_ - kept), kRounding * squared_norm_);
    // Gains shrink from step to step: after a small one no large one comes.
    const double gained = kept - std::exchange(before_, kept);
    return gained <= enough || possible_gain(found_, rank, found_.energies[size(rank)]) <= enough;
  }

  // The lengths are those of the values, not of their Gram matrix in f32.
  void take_left(PanelMatrix& gram) {
    multiply(values_, found_.right, product_);
    found_.left = std::move(product_);
    for (std::int64_t j = 0; j < width_; ++j) {
      double sum = 0;
      for (std::int64_t i = 0; i < found_.left.rows(); ++i)
        sum += static_cast<double>(found_.left.at(i, j)) * found_.left.at(i, j);
      found_.energies[size(j)] = sum;
    }
    found_.image = std::move(projected_);
    found_.gram = std::move(gram);
  }

  const PanelMatrix& values_;
  double squared_norm_;
  std::int64_t width_;
  const RankRule& rule_;
  PanelMatrix product_, projected_;  // of the values with right vectors, and with left ones
  Truncation found_;
  double before_ = 0;
  bool is_in_gram_ = false;
};

// The Gram matrix of what the first `rank` right vectors V leave: (I - V V^T) G (I - V V^T), which
// is G - V Y^T - Y V^T with Y = G V - V T / 2.
PanelMatrix left_out(Truncation& found, std::int64_t rank) {
  const std::int64_t rows = found.right.rows();
  PanelMatrix left(rows, 2 * rank), right(rows, 2 * rank);
  for (std::int64_t j = 0; j < rank; ++j) {
    const auto energy = static_cast<float>(found.energies[size(j)]);
    for (std::int64_t i = 0; i < rows; ++i) {
      const float vector = found.right.at(i, j);
      const float other = energy * (found.image.at(i, j) - 0.5F * vector);
      left.at(i, j) = right.at(i, rank + j) = vector;
      left.at(i, rank + j) = right.at(i, j) = other;
    }
  }
  PanelMatrix rest = std::move(found.gram);
  subtract_product(left, right, rest);
  return rest;
}

}  // namespace

Truncation truncate(const PanelMatrix& values, double squared_norm, const RankRule& rule,
                    const std::string& name, Purpose purpose,
                    const std::function<void(std::int64_t width)>& before) {
  const std::int64_t least = values.columns();
  PanelMatrix gram;
  for (std::int64_t width = (rule({}) + kSpare + kWidth - 1) / kWidth * kWidth;; width *= 2) {
    const std::int64_t share = purpose == Purpose::energies ? kValueShare : kShare;
    const bool is_exact = least <= kSmall || share * width > least;
    if (before) before(is_exact ? least : width);
    if (is_exact) return exact(values, purpose);
    Truncation found = Search(values, squared_norm, width, rule).run(name, purpose, gram);
    if (rule(found.energies) + kSpare <= width) return found;
    if (gram.columns() == 0) gram = std::move(found.gram);
  }
}

double least_squared_error(Truncation found, std::int64_t rank, double squared_norm,
                           const PanelMatrix& error, double squared_error) {
  const double kept = first_of(found.energies, rank);
  if (found.is_exact)
    return std::accumulate(found.energies.begin() + rank, found.energies.end(), 0.0);
  const bool has_gram = found.gram.columns() != 0;
  const double squares = has_gram ? squared_norm - kept : squared_error;
  const double rounding = kRounding * (kept + squares) +
                          (has_gram ? gram_rounding(rank, found.left.rows(), squared_norm) : 0.0);
  double gain = possible_gain(found, rank, squares);
  // The factorisation costs more than all the rest: only where it can say something.
  if (gain > kProven * squares && rounding < squares && has_plain_products(error, squares)) {
    double terms = lower_gram_terms(found.left.rows());
    // Chains of 2 rank products, beside the element itself, of at most the energy.
    if (has_gram) terms += 2 * static_cast<double>(2 * rank + 1);
    const double spread = terms * kUnit * (has_gram ? squared_norm : squares);
    const PanelMatrix rest = has_gram ? left_out(found, rank) : lower_gram(error);
    const double estimate = found.energies[size(rank)];
    const double allowance = cholesky_allowance(rest.rows());
    for (const double factor : {1.02, 1.1, 1.4, 2.0, 4.0}) {
      const double shift = factor * estimate;
      if (!is_below(rest, shift)) continue;
      const double proven = shift * (1 + allowance) + spread;
      gain = std::min(gain, possible_gain(found, rank, proven));
      break;
    }
  }
  return std::max(0.0, squares - gain - rounding);
}

}  // namespace lora::numbers
