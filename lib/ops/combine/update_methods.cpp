// The methods that the factors answer exactly: sums of multiples of the updates, and KnOTS, whose
// common basis and whose parts follow from the stacked factors. No update is formed.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "lora/base/error.h"
#include "ops/combine/inner_products.h"
#include "ops/combine/recipe.h"
#include "ops/combine/sparse.h"
#include "ops/numbers/update_svd.h"

namespace lora::combining {
namespace {

using numbers::UpdateSvd;
using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Closer than this to parallel or opposite (1.8 degrees) the great circle is a line, or undefined.
constexpr double kParallel = 0.9995;
// Directions of KnOTS's common basis below this share of the largest add nothing, and would only
// move the border that trimming draws.
constexpr double kNegligible = 1e-7;

Rows dense(const Tensor& tensor) {
  const std::vector<double> values = tensor.to_f64();
  return Eigen::Map<const Rows>(values.data(), tensor.shape.at(0), tensor.shape.at(1));
}

// Side by side: the sum of c B A is [B ...] [c A; ...].
Combination side_by_side(const std::vector<UpdateFactor>& terms) {
  Combination result;
  Eigen::Index rank = 0;
  for (const UpdateFactor& term : terms) rank += term.a.shape[0];
  result.b.resize(terms.front().b.shape[0], rank);
  result.a.resize(rank, terms.front().a.shape[1]);
  Eigen::Index at = 0;
  for (const UpdateFactor& term : terms) {
    const Eigen::Index own = term.a.shape[0];
    // Where the scale stands matters to nothing but the bits; PEFT scales A.
    result.a.middleRows(at, own) = dense(term.a) * term.scaling;
    result.b.middleCols(at, own) = dense(term.b);
    at += own;
  }
  result.squared_error = 0;
  return result;
}

// Gram matrices of the terms times weights, which stand in B.
numbers::StackGrams weighted(const Products& products, const Vector& weights) {
  numbers::StackGrams grams = products.grams;
  Vector scales(grams.b.rows());
  Eigen::Index at = 0;
  for (std::size_t i = 0; i < products.terms.size(); ++i) {
    const Eigen::Index own = products.terms[i].a.shape[0];
    scales.segment(at, own).setConstant(weights(static_cast<Eigen::Index>(i)));
    at += own;
  }
  grams.b = (scales.asDiagonal() * grams.b * scales.asDiagonal()).eval();
  return grams;
}

// How many singular values are kept.
Eigen::Index rank_for(const UpdateSvd& svd, const Recipe& recipe, std::int64_t standard) {
  const Vector& values = svd.values();
  const Eigen::Index limit = values.size();
  if (!recipe.energy)
    return std::max<Eigen::Index>(1, std::min<Eigen::Index>(recipe.rank.value_or(standard), limit));
  const double wanted = *recipe.energy * svd.energy();
  double kept = 0;
  Eigen::Index rank = 0;
  while (rank < limit && kept < wanted) kept += std::pow(values(rank++), 2);
  return std::max<Eigen::Index>(1, rank);
}

Combination truncated(const UpdateSvd& svd, const Recipe& recipe, std::int64_t standard) {
  const Eigen::Index rank = rank_for(svd, recipe, standard);
  Combination result;
  numbers::SplitFactors factors = numbers::split_factors(svd, rank, 1);
  result.b = std::move(factors.b);
  result.a = std::move(factors.a);
  result.squares = svd.energy();
  result.squared_error = svd.values().tail(svd.values().size() - rank).squaredNorm();
  return result;
}

// The updates side by side, [out, adapters * in]: term i has its own columns.
std::vector<UpdateFactor> concatenated(const Products& products) {
  const std::int64_t columns = products.columns();
  const auto count = static_cast<std::int64_t>(products.terms.size());
  std::vector<UpdateFactor> terms;
  for (std::int64_t i = 0; i < count; ++i) {
    const UpdateFactor& term = products.terms[static_cast<std::size_t>(i)];
    Matrix wide = Matrix::Zero(term.a.shape[0], columns * count);
    wide.middleCols(i * columns, columns) = dense(term.a);
    UpdateFactor& own = terms.emplace_back(term);
    own.a = product_of(Matrix::Zero(1, 1), wide).a;
  }
  return terms;
}

// U S V of the updates side by side; TIES on the parts S V of each; U times what it gives.
Combination aligned(const Products& products, const Recipe& recipe) {
  const UpdateSvd svd(concatenated(products));
  const Vector& values = svd.values();
  const Eigen::Index rank =
      values.size() == 0 ? 0 : (values.array() > kNegligible * values(0)).count();
  Combination result;
  if (rank == 0) {
    result.b = Matrix::Zero(products.rows(), 1);
    result.a = Matrix::Zero(1, products.columns());
    return result;
  }
  result.b = svd.left(rank);
  std::vector<Rows> parts;
  std::vector<double> weights;
  for (std::size_t i = 0; i < products.terms.size(); ++i) {
    const UpdateFactor& term = products.terms[i];
    const Matrix inside = result.b.transpose() * dense(term.b) * term.scaling;
    Rows& part = parts.emplace_back(inside * dense(term.a));
    weights.push_back(recipe.weights[products.adapters[i]]);
    const std::span<double> all(part.data(), static_cast<std::size_t>(part.size()));
    Trim trim(part.size(), recipe.density);
    for (int pass = 0; pass < 2; ++pass) {
      trim.see(all);
      trim.settle();
    }
    trim.keep(all);
  }
  std::vector<std::span<double>> spans;
  for (Rows& part : parts) spans.emplace_back(part.data(), static_cast<std::size_t>(part.size()));
  Rows merged(rank, products.columns());
  elect(spans, weights, recipe.majority_sign, recipe.is_election_unweighted(),
        {merged.data(), static_cast<std::size_t>(merged.size())});
  result.a = merged;
  if (recipe.rank || recipe.energy)
    return truncated(UpdateSvd({product_of(result.b, result.a)}), recipe, rank);
  result.squares = result.a.squaredNorm();
  result.squared_error = 0;
  return result;
}

}  // namespace

std::vector<double> coefficients_of(const Products& products, const Recipe& recipe) {
  std::vector<double> weights;
  for (const std::size_t adapter : products.adapters) weights.push_back(recipe.weights[adapter]);
  if (recipe.method == CombineMethod::svd && recipe.compat == PeftCompat::v0_20)
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i] *= products.terms[i].scaling;
  if (recipe.method != CombineMethod::slerp) return weights;
  const double sum = recipe.weights.at(0) + recipe.weights.at(1);
  for (double& weight : weights) weight /= sum;
  if (products.terms.size() < 2) return weights;
  const Matrix& inner = products.inner;
  const double lengths = std::sqrt(inner(0, 0) * inner(1, 1));
  const double cosine = lengths > 0 ? inner(0, 1) / lengths : 1;
  if (std::fabs(cosine) > kParallel) return weights;
  const double angle = std::acos(cosine);
  for (double& weight : weights) weight = std::sin(weight * angle) / std::sin(angle);
  return weights;
}

Combination combine_updates(const Products& products, const Recipe& recipe) {
  if (recipe.method == CombineMethod::knots) return aligned(products, recipe);
  std::vector<UpdateFactor> terms = products.terms;
  const std::vector<double> coefficients = coefficients_of(products, recipe);
  const Vector weights =
      Eigen::Map<const Vector>(coefficients.data(), static_cast<Eigen::Index>(coefficients.size()));
  for (std::size_t i = 0; i < terms.size(); ++i) terms[i].scaling *= coefficients[i];
  const bool is_free = recipe.rank || recipe.energy;
  if (recipe.method == CombineMethod::cat || (recipe.method == CombineMethod::slerp && !is_free)) {
    Combination result = side_by_side(terms);
    result.squares = std::max(0.0, weights.dot(products.inner * weights));
    return result;
  }
  return truncated(UpdateSvd(std::move(terms), weighted(products, weights)), recipe,
                   products.largest_rank());
}

}  // namespace lora::combining
