// How the updates of one site become one update.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/update.h"
#include "lora/ops/combine.h"
#include "ops/numbers/factor_stack.h"

namespace lora::combining {

using numbers::Matrix;
using numbers::Vector;

/// Options of a combination, as every site uses them.
struct Recipe {
  CombineMethod method = CombineMethod::cat;
  std::vector<double> weights;  ///< by adapter
  std::optional<std::int64_t> rank;
  std::optional<double> energy;
  double density = 1;
  MajoritySign majority_sign = MajoritySign::total;
  std::uint64_t seed = 0;
  std::optional<PeftCompat> compat;

  /// PEFT elects signs by values without weights.
  bool is_election_unweighted() const { return compat.has_value(); }
};

/// The updates that meet at a site: plain products of one shape.
struct Products {
  std::string name;  ///< of the site: the random numbers of DARE follow from it
  std::int64_t expert = 0;
  std::vector<std::size_t> adapters;  ///< by position in the list
  std::vector<UpdateFactor> terms;    ///< one for each of them
  numbers::StackGrams grams;          ///< of the terms
  Matrix inner;                       ///< inner products of the updates

  std::int64_t rows() const { return terms.front().b.shape.at(0); }
  std::int64_t columns() const { return terms.front().a.shape.at(1); }
  std::int64_t largest_rank() const;
};

/// One update B . A with scaling 1.
struct Combination {
  Matrix b, a;
  double squares = 0;  ///< ||what the method defines||^2
  /// ||result - what the method defines||^2; absent where the factors are the definition.
  std::optional<double> squared_error;
};

/// Whether every adapter must bring the same rank to a site.
bool needs_equal_ranks(CombineMethod method);
/// Whether the method is about the updates themselves, so that the rank of the result is free.
bool has_free_rank(CombineMethod method);
/// Whether the method trims or drops.
bool is_sparse(CombineMethod method);
/// Whether each update is formed, block by block.
bool is_dense(CombineMethod method);
/// Whether the result is a sum of multiples of the updates.
bool is_linear(CombineMethod method);

/// linear, ties, dare_linear, dare_ties, magnitude_prune.
Combination combine_factors(const Products& products, const Recipe& recipe);
/// cat, svd, slerp, knots.
Combination combine_updates(const Products& products, const Recipe& recipe);
/// ties_svd, dare_linear_svd, dare_ties_svd, magnitude_prune_svd.
Combination combine_dense(const Products& products, const Recipe& recipe);

/// Stream of DARE's random numbers: adapter (position from 0) and matrix ("PATH.lora_A").
std::uint64_t mask_stream(std::size_t adapter, const std::string& matrix);

/// What each update is multiplied with in a method that adds multiples of them; slerp looks at the
/// angle between the updates.
std::vector<double> coefficients_of(const Products& products, const Recipe& recipe);

}  // namespace lora::combining
