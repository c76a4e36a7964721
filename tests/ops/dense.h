// Tensors as dense f64 matrices, to recompute results from.
#pragma once

#include <Eigen/Dense>
#include <vector>

#include "lora/base/tensor.h"

namespace lora::testing {

using Matrix = Eigen::MatrixXd;
/// Rows one after another, as in a tensor.
using Dense = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// The first dimension by everything else.
inline Dense dense(const Tensor& tensor) {
  const std::vector<double> values = tensor.to_f64();
  return Eigen::Map<const Dense>(values.data(), tensor.shape.at(0),
                                 static_cast<Eigen::Index>(values.size()) / tensor.shape.at(0));
}

}  // namespace lora::testing
