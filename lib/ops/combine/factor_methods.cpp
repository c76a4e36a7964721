// The methods that work on all A and on all B, as PEFT defines them: cheap, of the ranks that went
// in, and no combination of the updates, since every B meets every A.
#include <algorithm>
#include <cmath>

#include "ops/combine/inner_products.h"
#include "ops/combine/recipe.h"
#include "ops/combine/sparse.h"

namespace lora::combining {
namespace {

using Values = std::vector<double>;

Values trimmed(Values values, double density) {
  Trim trim(static_cast<std::int64_t>(values.size()), density);
  for (int pass = 0; pass < 2; ++pass) {
    trim.see(values);
    trim.settle();
  }
  trim.keep(values);
  return values;
}

// The factors of one side, each with its weight, as one.
Values combine_side(std::vector<Values> factors, const std::vector<double>& weights,
                    const Products& products, const Recipe& recipe, const std::string& matrix) {
  const CombineMethod method = recipe.method;
  const bool is_dropped =
      method == CombineMethod::dare_linear || method == CombineMethod::dare_ties;
  const bool is_trimmed = method == CombineMethod::ties || method == CombineMethod::magnitude_prune;
  std::vector<std::span<double>> spans;
  for (std::size_t i = 0; i < factors.size(); ++i) {
    Values& values = factors[i];
    if (is_trimmed) values = trimmed(std::move(values), recipe.density);
    if (is_dropped)
      Drop(recipe.seed, mask_stream(products.adapters[i], products.name + matrix), recipe.density)
          .keep(values, static_cast<std::uint64_t>(products.expert) * values.size());
    spans.emplace_back(values);
  }
  Values out(factors.front().size());
  if (method == CombineMethod::ties || method == CombineMethod::dare_ties) {
    elect(spans, weights, recipe.majority_sign, recipe.is_election_unweighted(), out);
  } else {
    add_weighted(spans, weights, out);
  }
  return out;
}

Matrix matrix_of(const Values& values, std::int64_t rows, std::int64_t columns) {
  using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  return Eigen::Map<const Rows>(values.data(), rows, columns);
}

}  // namespace

Combination combine_factors(const Products& products, const Recipe& recipe) {
  std::vector<Values> a, b;
  std::vector<double> weights_a, weights_b;
  for (std::size_t i = 0; i < products.terms.size(); ++i) {
    const UpdateFactor& term = products.terms[i];
    const double u = recipe.weights[products.adapters[i]] * term.scaling;
    // The sign stands on one side only: on both it would cancel.
    weights_a.push_back(std::copysign(std::sqrt(std::fabs(u)), u));
    weights_b.push_back(std::sqrt(std::fabs(u)));
    a.push_back(term.a.to_f64());
    b.push_back(term.b.to_f64());
  }
  const std::int64_t rank = products.terms.front().a.shape[0];
  Combination result;
  result.a = matrix_of(combine_side(std::move(a), weights_a, products, recipe, ".lora_A"), rank,
                       products.columns());
  result.b = matrix_of(combine_side(std::move(b), weights_b, products, recipe, ".lora_B"),
                       products.rows(), rank);
  if (recipe.method != CombineMethod::linear) {
    result.squares =
        (result.a * result.a.transpose()).cwiseProduct(result.b.transpose() * result.b).sum();
    return result;
  }
  // Against the sum that this stands for.
  std::vector<UpdateFactor> terms = products.terms;
  for (std::size_t i = 0; i < terms.size(); ++i)
    terms[i].scaling *= recipe.weights[products.adapters[i]];
  terms.push_back(product_of(result.b, result.a));
  const Matrix inner = inner_products(terms);
  const Eigen::Index last = inner.rows() - 1;
  result.squares = inner.topLeftCorner(last, last).sum();
  const double error = result.squares + inner(last, last) - 2 * inner.row(last).head(last).sum();
  // What cancels below is the resolution of f64.
  constexpr double kResolution = 1e-14;
  const double size = inner.diagonal().sum();
  result.squared_error = error > kResolution * size ? error : 0;
  return result;
}

}  // namespace lora::combining
