// Value by value comparison of two float tensors of equal shape, in pieces.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "lora/ops/diff.h"

namespace lora {

/// Comparison of some consecutive elements; pieces are joined in order.
struct ValuePiece {
  double squares = 0, squares_a = 0, squares_b = 0;  ///< over pairs of finite values
  double largest = 0;                                ///< infinite where only one side is
  std::int64_t changed = 0, non_finite_a = 0, non_finite_b = 0, not_comparable = 0;
  std::array<std::int64_t, 65> steps{};  ///< by bit width of the number of steps
};

inline constexpr std::int64_t kValuesAtOnce = std::int64_t{1} << 20;

/// The dtype of the two with fewer bits of precision; F16 against BF16: BF16.
DType coarser_of(DType a, DType b);

ValuePiece compare_values(const Tensor& a, const Tensor& b, std::int64_t first, std::int64_t count);

/// Fills the figures of values, and `changed_elements`.
void join(const Tensor& a, const Tensor& b, std::span<const ValuePiece> pieces,
          TensorDifference& result);

}  // namespace lora
