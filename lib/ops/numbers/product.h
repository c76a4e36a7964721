// Figures of one product s * B . A from the Gram matrices of its factors.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "lora/adapter/update.h"
#include "ops/numbers/gram.h"

namespace lora::numbers {

struct ProductFigures {
  double squared_norm = 0;  ///< with the scaling
  double sum = 0;           ///< of all elements
  double elements = 0;
  std::vector<double> singular_values;  ///< descending, as many as the product has ranks
  std::vector<std::int64_t> dead;
  std::vector<std::pair<std::int64_t, std::int64_t>> duplicates;
};

/// `a` and `b` are mirrored Gram matrices of A and of B, of lengths columns and rows. `is_b_random`
/// says which factor starts from random numbers, so that equal directions in it mean something:
/// A, and for embeddings B.
ProductFigures figures_of(const Gram& a, const Gram& b, double scaling, std::int64_t rows,
                          std::int64_t columns, bool is_b_random);

/// The same from the factors; nothing when a value is not finite or there are no values. Where the
/// rank exceeds a dimension of the product the product itself is the smaller matrix and is used.
std::optional<ProductFigures> figures_of(const UpdateFactor& factor, bool is_b_random);

/// True when the rank exceeds no dimension of the product, so that Gram matrices are the cheap way.
bool is_thin(const MatrixView& a, const MatrixView& b);

/// Adds up products in the order given, `rank` rank rows each.
UpdateStatistics add_up(const std::vector<ProductFigures>& products, std::int64_t rank);

}  // namespace lora::numbers
