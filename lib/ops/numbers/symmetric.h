// Small symmetric problems behind norms, singular values and angles.
#pragma once

#include <Eigen/Dense>
#include <vector>

#include "ops/numbers/gram.h"

namespace lora::numbers {

using Matrix = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;

Matrix matrix_of(const Gram& gram);

/// F with F F^T = m for a positive semidefinite m, through a pivoted Cholesky factorisation.
Matrix factor_of(const Matrix& m);

/// Per rank row the weight w > 0 that gives row i of A times w and column i of B divided by w the
/// same length; 0 where either is zero. Such a change leaves B . A as it is and removes the ill
/// conditioning that comes from scaling alone.
Vector balance(const Matrix& gram_a, const Matrix& gram_b);

/// Singular values of B . A: square roots of the eigenvalues of F^T (B^T B) F with F F^T = A A^T,
/// descending, of the balanced matrices.
Vector singular_values_of(const Matrix& gram_a, const Matrix& gram_b);

/// The singular vectors of an update B . A that matter, in terms of its factors: left vectors are
/// the columns of B . left, right vectors those of A^T . right.
struct SingularSpace {
  Vector values;  ///< all singular values, descending
  Matrix left, right;
};
SingularSpace singular_space_of(const Matrix& gram_a, const Matrix& gram_b);

/// Principal angles between two spaces with orthonormal bases X and Y, from X^T Y: ascending,
/// degrees.
std::vector<double> angles_of(const Matrix& inner);

/// ||B . A||_F^2 = sum over i, j of (A A^T)_ij (B^T B)_ij; 0 where the terms cancel below what f64
/// resolves.
double squared_norm_of(const Matrix& gram_a, const Matrix& gram_b);

}  // namespace lora::numbers
