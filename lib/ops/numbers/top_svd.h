// The largest singular values of a dense matrix and their vectors.
#pragma once

#include <cstdint>
#include <string>

#include "ops/numbers/symmetric.h"
#include "ops/numbers/tally.h"

namespace lora::numbers {

struct TopSvd {
  Vector values;       ///< descending
  Matrix left, right;  ///< [rows, k], [columns, k]
  double energy = 0;   ///< ||matrix||_F^2
};

/// What must be right. `energy`: another step changes the energy in the values by less than 1e-11
/// of the whole, which makes the best approximation but leaves directions of nearly equal values
/// mixed. `vectors`: the vectors are exact ones of a matrix that differs by 1e-8 of the largest
/// value, less than one rounding of it to f32.
enum class Accuracy { energy, vectors };

/// The `rank` largest (or all there are). Small matrices and large ranks are decomposed as a whole;
/// otherwise the singular values are those of a block Krylov space that grows until they are
/// accurate. Beside the matrix it takes f64 panels of some multiples of `rank` columns. The result
/// depends on nothing but the arguments; `name` starts the random numbers.
TopSvd top_svd(const MatrixView& matrix, std::int64_t rank, const std::string& name,
               Accuracy accuracy);

}  // namespace lora::numbers
