// Statistics of tensors and of applied updates, without ever materialising an update.
//
// The update of a linear module is dW = s * B . A with B [out, r] and A [r, in]; other kinds are
// several such products in disjoint blocks (lora/adapter/update.h). Everything here works on the
// r x r Gram matrices B^T B and A A^T: ||dW||_F^2 = s^2 tr((B^T B)(A A^T)), the sum of all elements
// is s * (1^T B)(A 1), and the squared singular values of dW / s are the eigenvalues of
// F^T (B^T B) F with F F^T = A A^T.
//
// Products and sums are f64. Products of f32, f16 and bf16 values are exact in f64 and sums have a
// fixed order, so results do not depend on the number of threads nor on the instructions the
// processor has. Norms are exact to about 1e-13; a singular value s_i to about 1e-14 * s_1^2 / s_i.
// An update whose products cancel below 1e-7 of their size is zero.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/tensor.h"

namespace lora {

/// Of the finite values; `std` is the sample deviation (n - 1), as torch.std. A row is everything
/// with one index along dimension 0; tensors of fewer than two dimensions count no rows.
struct TensorStatistics {
  double mean = 0, std = 0, norm = 0, min = 0, max = 0;
  std::int64_t count = 0, nan_count = 0, inf_count = 0;
  std::int64_t first_non_finite = -1;  ///< flat index, -1 when all values are finite
  std::int64_t denormal_count = 0;     ///< not zero and below the smallest normal of the dtype
  std::int64_t rows = 0;
  std::int64_t zero_rows = 0;       ///< rows that hold nothing but zeros
  std::int64_t zero_tail_rows = 0;  ///< of these, the contiguous ones at the end
  bool is_all_zero = true;
};

/// Throws Error(unsupported) for dtypes that are not floats.
TensorStatistics statistics_of(const Tensor& tensor);

/// Of dW; all zero when a factor holds NaN or Inf. Several products (experts, groups) add up in
/// `norm`, `mean` and `std`, and their singular values are listed together.
struct UpdateStatistics {
  double mean = 0, std = 0, norm = 0;
  double effective_rank = 0;  ///< exp(entropy of singular values / their sum); Roy & Vetterli 2007
  double stable_rank = 0;     ///< ||dW||_F^2 / ||dW||_2^2
  double concentration = 0;   ///< share of the squared norm in the largest singular value
  /// Descending; min(rank, rows, columns) a product.
  std::vector<double> singular_values;
  /// Rank rows i (row i of A, column i of B) that add nothing because one of the two is zero, in
  /// products that are not zero altogether. Counted across products: product p's row i is p * r +
  /// i.
  std::vector<std::int64_t> dead_rank_rows;
  /// Rank rows i < j whose rows of A point in the same or the opposite direction (sine of the angle
  /// below 1e-6, at least 8 columns); embeddings: whose columns of B do.
  std::vector<std::pair<std::int64_t, std::int64_t>> duplicate_rank_rows;
  /// DoRA: the figures are those of s * B . A, which changes the direction that the magnitude is
  /// then given to; they are not the distance from the base weight.
  bool is_direction = false;
};

UpdateStatistics update_statistics(const LoraModule& module);

/// How two updates of the same module differ; ranks, scalings and gauges may differ.
///
/// Principal angles are those between the spaces that the updates read from (row spaces) and write
/// to (column spaces), spanned by singular vectors whose values exceed 1e-4 of the largest.
/// Ascending, degrees, as many as the smaller space has dimensions; empty when either update is
/// zero. Angles below 0.01 degrees are at the limit of what Gram matrices resolve and are 0.
///
/// Several products (experts, groups): squares and inner products add up, angles and singular
/// values are listed together. Everything is NaN when a factor holds NaN or Inf.
struct UpdateDistance {
  double norm_a = 0, norm_b = 0;
  double difference = 0;  ///< ||dW_a - dW_b||_F; gauge-free down to 1e-13 of the norms
  double relative = 0;    ///< difference / norm_a; 0 when both are zero, infinite when only a is
  double cosine = 0;      ///< <dW_a, dW_b> / (norm_a norm_b); 1 when both are zero, 0 when one is
  double best_scale = 0;  ///< c for which c * dW_a is nearest to dW_b; 0 when a is zero
  std::vector<double> column_angles, row_angles;
  double largest_angle = 0;  ///< the last of column_angles, 0 when there is none
  std::vector<double> singular_values_a, singular_values_b;  ///< descending
};

/// Throws Error(incompatible) when the updates have different shapes.
UpdateDistance update_distance(const LoraModule& a, const LoraModule& b);

}  // namespace lora
