#include "ops/numbers/symmetric.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace lora::numbers {
namespace {

constexpr double kLeastShare = 1e-4;
constexpr double kLeastAngle = 0.01;  // degrees

}  // namespace

Matrix matrix_of(const Gram& gram) {
  using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  return Eigen::Map<const Rows, 0, Eigen::OuterStride<>>(
      gram.products.data(), gram.rows, gram.columns, Eigen::OuterStride<>(gram.stride));
}

Matrix factor_of(const Matrix& m) {
  const Eigen::LDLT<Matrix> ldlt(m);
  Matrix factor = ldlt.matrixL();
  factor = factor * ldlt.vectorD().cwiseMax(0).cwiseSqrt().asDiagonal();
  return ldlt.transpositionsP().transpose() * factor;
}

Vector balance(const Matrix& gram_a, const Matrix& gram_b) {
  Vector weights = Vector::Zero(gram_a.rows());
  for (Eigen::Index i = 0; i < weights.size(); ++i) {
    const double a = gram_a(i, i);
    const double b = gram_b(i, i);
    if (a > 0 && b > 0) weights(i) = std::sqrt(std::sqrt(b) / std::sqrt(a));
  }
  return weights;
}

namespace {

struct Balanced {
  Vector weights, inverse;
  Matrix gram_b;  // B^T B
  Matrix factor;  // F with F F^T = A A^T
  Matrix core;    // F^T (B^T B) F

  Balanced(const Matrix& a, const Matrix& b) : weights(balance(a, b)) {
    inverse = (weights.array() > 0).select(weights.cwiseInverse(), 0);
    factor = factor_of(weights.asDiagonal() * a * weights.asDiagonal());
    gram_b = inverse.asDiagonal() * b * inverse.asDiagonal();
    core = factor.transpose() * gram_b * factor;
  }
};

}  // namespace

Vector singular_values_of(const Matrix& gram_a, const Matrix& gram_b) {
  const Balanced balanced(gram_a, gram_b);
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(balanced.core, Eigen::EigenvaluesOnly);
  return solver.eigenvalues().reverse().cwiseMax(0).cwiseSqrt();
}

SingularSpace singular_space_of(const Matrix& gram_a, const Matrix& gram_b) {
  const Balanced balanced(gram_a, gram_b);
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(balanced.core);
  SingularSpace space;
  space.values = solver.eigenvalues().reverse().cwiseMax(0).cwiseSqrt();
  const double least = kLeastShare * (space.values.size() == 0 ? 0 : space.values(0));
  const Eigen::Index count = (space.values.array() > least).count();
  const Vector inverse = space.values.head(count).cwiseInverse();
  // With A = F Q^T and B F = X S U^T: X = B (F U / S) and Q U = A^T (B^T B F U / S^2).
  const Matrix left = balanced.factor * solver.eigenvectors().rowwise().reverse().leftCols(count) *
                      inverse.asDiagonal();
  space.left = balanced.inverse.asDiagonal() * left;
  space.right = balanced.weights.asDiagonal() * (balanced.gram_b * left * inverse.asDiagonal());
  return space;
}

std::vector<double> angles_of(const Matrix& inner) {
  const Matrix wide = inner.rows() < inner.cols() ? inner : Matrix(inner.transpose());
  const Matrix squares = wide * wide.transpose();
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(squares, Eigen::EigenvaluesOnly);
  std::vector<double> angles;
  for (const double square : solver.eigenvalues().reverse()) {
    const double angle =
        std::acos(std::sqrt(std::clamp(square, 0.0, 1.0))) * 180 / std::numbers::pi;
    angles.push_back(angle < kLeastAngle ? 0 : angle);
  }
  return angles;
}

double squared_norm_of(const Matrix& gram_a, const Matrix& gram_b) {
  const double squares = gram_a.cwiseProduct(gram_b).sum();
  // No term exceeds the product of two lengths: |sum| <= (sum over i of |a_i| |b_i|)^2.
  const double lengths = gram_a.diagonal().cwiseProduct(gram_b.diagonal()).cwiseSqrt().sum();
  constexpr double kResolution = 8 * std::numeric_limits<double>::epsilon();
  return squares > kResolution * lengths * lengths ? squares : 0;
}

}  // namespace lora::numbers
