// The largest singular values of a dense matrix and their vectors.
#pragma once

#include <cstdint>
#include <string>

#include "ops/numbers/symmetric.h"

namespace lora::numbers {

using FloatRows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct TopSvd {
  Vector values;       ///< descending
  Matrix left, right;  ///< [rows, k], [columns, k]
  double energy = 0;   ///< ||matrix||_F^2
};

/// The `rank` largest (or all there are). Small matrices and large ranks are decomposed as a whole;
/// otherwise the singular values are those of a block Krylov space that grows until another step
/// changes the energy in these values by less than 1e-11 of it. Beside the matrix it takes f64
/// panels of some multiples of `rank` columns. The result depends on nothing but the arguments;
/// `name` starts the random numbers.
TopSvd top_svd(const FloatRows& matrix, std::int64_t rank, const std::string& name);

}  // namespace lora::numbers
