#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "lora/adapter/update.h"
#include "lora/base/error.h"
#include "lora/ops/statistics.h"
#include "ops/numbers/product.h"
#include "ops/numbers/symmetric.h"

namespace lora {
namespace {

using namespace numbers;

// Below this share of the norms the difference of squares has lost digits, and the difference is
// computed from the factors again.
constexpr double kCancelled = 1e-6;
constexpr double kSingular = 1e-12;

// Gram matrices of one factor in two adapters, and across them.
struct PairSums {
  Matrix first, second, across;

  // A square of a value that is not finite is not finite either, and no sum hides it.
  bool is_finite() const { return first.diagonal().allFinite() && second.diagonal().allFinite(); }
};

struct Factors {
  MatrixView first, second;
  Side side;

  Factors(const Tensor& x, const Tensor& y, Side s) : first(x), second(y), side(s) {}

  // Calls use(left panel, right panel) over the whole length.
  template <typename Use>
  void walk(Use&& use) {
    const std::int64_t length = length_of(first, side);
    RunReader left_reader(first);
    RunReader right_reader(second);
    Panel left(numbers::rank_of(first, side));
    Panel right(numbers::rank_of(second, side));
    const std::int64_t step = std::min(left.capacity(), right.capacity());
    for (std::int64_t k = 0; k < length; k += step) {
      const std::int64_t count = std::min(step, length - k);
      left.fill(first, side, k, count, left_reader);
      right.fill(second, side, k, count, right_reader);
      use(left, right);
    }
  }

  PairSums sums() {
    const std::int64_t r1 = numbers::rank_of(first, side);
    const std::int64_t r2 = numbers::rank_of(second, side);
    Gram one(r1, r1);
    Gram two(r2, r2);
    Gram both(r1, r2);
    walk([&](const Panel& left, const Panel& right) {
      one.add(left);
      two.add(right);
      both.add(left, right);
    });
    one.mirror();
    two.mirror();
    return {matrix_of(one), matrix_of(two), matrix_of(both)};
  }
};

std::vector<double> row_major(const Matrix& m) {
  std::vector<double> values;
  for (Eigen::Index i = 0; i < m.rows(); ++i)
    for (Eigen::Index j = 0; j < m.cols(); ++j) values.push_back(m(i, j));
  return values;
}

// ||D||^2 without cancellation. With any G, and E_A = A2 - G A1, E_B = s1 B1 - s2 B2 G:
// D = s1 B1 A1 - s2 B2 A2 = E_B A1 - s2 B2 E_A. G is the least-squares solution, so that both parts
// are small where the updates are close.
std::optional<double> squared_difference_from_parts(Factors& a, const PairSums& sums_a, Factors& b,
                                                    const PairSums& sums_b, double s1, double s2) {
  const Vector weights = sums_a.first.diagonal().cwiseSqrt();
  if ((weights.array() <= 0).any()) return std::nullopt;
  const Vector inverse = weights.cwiseInverse();
  const Eigen::LDLT<Matrix> ldlt(inverse.asDiagonal() * sums_a.first * inverse.asDiagonal());
  if (ldlt.vectorD().minCoeff() < kSingular) return std::nullopt;
  const Matrix g =
      (inverse.asDiagonal() * ldlt.solve(inverse.asDiagonal() * sums_a.across)).transpose();
  const Eigen::Index r1 = sums_a.first.rows();
  const Eigen::Index r2 = sums_a.second.rows();
  Gram ea(r2, r2);
  Gram ea_a1(r2, r1);
  Panel residual_a(r2);
  const std::vector<double> coefficients_a = row_major(g);
  a.walk([&](const Panel& left, const Panel& right) {
    residual_a.subtract(right, left, coefficients_a);
    ea.add(residual_a);
    ea_a1.add(residual_a, left);
  });
  ea.mirror();
  Gram eb(r1, r1);
  Gram eb_b2(r1, r2);
  Panel residual_b(r1);
  // E_B / s1, rank row by rank row: B1 - (s2 / s1) B2 G.
  const std::vector<double> coefficients_b = row_major(g.transpose() * (s2 / s1));
  b.walk([&](const Panel& left, const Panel& right) {
    residual_b.subtract(left, right, coefficients_b);
    eb.add(residual_b);
    eb_b2.add(residual_b, right);
  });
  eb.mirror();
  return s1 * s1 * matrix_of(eb).cwiseProduct(sums_a.first).sum() +
         s2 * s2 * sums_b.second.cwiseProduct(matrix_of(ea)).sum() -
         2 * s1 * s2 * matrix_of(eb_b2).cwiseProduct(matrix_of(ea_a1).transpose()).sum();
}

struct Sums {
  double squares_a = 0, squares_b = 0, inner = 0, squares = 0;
};

void append(std::vector<double>& values, const Vector& more, double scale) {
  for (const double value : more) values.push_back(std::fabs(scale) * value);
}

bool is_thin_pair(const UpdateFactor& x) { return is_thin(MatrixView(x.a), MatrixView(x.b)); }

void add_thin(const UpdateFactor& x, const UpdateFactor& y, Sums& total, UpdateDistance& result) {
  Factors a(x.a, y.a, Side::rows);
  Factors b(x.b, y.b, Side::columns);
  const PairSums sums_a = a.sums();
  const PairSums sums_b = b.sums();
  if (!sums_a.is_finite() || !sums_b.is_finite()) {
    total.squares_a = std::numeric_limits<double>::quiet_NaN();
    return;
  }
  const double s1 = x.scaling;
  const double s2 = y.scaling;
  const double squares_a = s1 * s1 * squared_norm_of(sums_a.first, sums_b.first);
  const double squares_b = s2 * s2 * squared_norm_of(sums_a.second, sums_b.second);
  const double inner = s1 * s2 * sums_a.across.cwiseProduct(sums_b.across).sum();
  double squares = squares_a + squares_b - 2 * inner;
  if (squares_a > 0 && squares < kCancelled * squares_a)
    squares = squared_difference_from_parts(a, sums_a, b, sums_b, s1, s2).value_or(squares);
  total.squares_a += squares_a;
  total.squares_b += squares_b;
  total.inner += inner;
  total.squares += std::max(0.0, squares);
  const SingularSpace one = singular_space_of(sums_a.first, sums_b.first);
  const SingularSpace two = singular_space_of(sums_a.second, sums_b.second);
  append(result.singular_values_a, one.values, s1);
  append(result.singular_values_b, two.values, s2);
  if (squares_a == 0 || squares_b == 0) return;
  for (const double angle : angles_of(one.left.transpose() * sums_b.across * two.left))
    result.column_angles.push_back(angle);
  for (const double angle : angles_of(one.right.transpose() * sums_a.across * two.right))
    result.row_angles.push_back(angle);
}

Matrix dense_update(const UpdateFactor& factor) {
  using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const auto dense = [](const Tensor& tensor) {
    const std::vector<double> values = tensor.to_f64();
    return Matrix(Eigen::Map<const Rows>(values.data(), tensor.shape.at(0), tensor.shape.at(1)));
  };
  return factor.scaling * (dense(factor.b) * dense(factor.a));
}

// Singular values and vectors of one side of M, from M M^T.
struct Space {
  Vector values;
  Matrix basis;  // of values above the share that principal angles count
};

Space space_of(const Matrix& squares) {
  constexpr double kLeastShare = 1e-4;
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(squares);
  Space space;
  space.values = solver.eigenvalues().reverse().cwiseMax(0).cwiseSqrt();
  const Eigen::Index count = (space.values.array() > kLeastShare * space.values(0)).count();
  space.basis = solver.eigenvectors().rowwise().reverse().leftCols(count);
  return space;
}

// A rank above a dimension: the updates are smaller than their factors.
void add_small(const UpdateFactor& x, const UpdateFactor& y, Sums& total, UpdateDistance& result) {
  const Matrix one = dense_update(x);
  const Matrix two = dense_update(y);
  if (!one.allFinite() || !two.allFinite()) {
    total.squares_a = std::numeric_limits<double>::quiet_NaN();
    return;
  }
  total.squares_a += one.squaredNorm();
  total.squares_b += two.squaredNorm();
  total.inner += one.cwiseProduct(two).sum();
  total.squares += (one - two).squaredNorm();
  const Space left_one = space_of(one * one.transpose());
  const Space left_two = space_of(two * two.transpose());
  append(result.singular_values_a, left_one.values, 1);
  append(result.singular_values_b, left_two.values, 1);
  if (one.isZero(0) || two.isZero(0)) return;
  for (const double angle : angles_of(left_one.basis.transpose() * left_two.basis))
    result.column_angles.push_back(angle);
  const Space right_one = space_of(one.transpose() * one);
  const Space right_two = space_of(two.transpose() * two);
  for (const double angle : angles_of(right_one.basis.transpose() * right_two.basis))
    result.row_angles.push_back(angle);
}

}  // namespace

UpdateDistance update_distance(const LoraModule& first, const LoraModule& second) {
  const std::vector<UpdateFactor> x = update_factors(first);
  const std::vector<UpdateFactor> y = update_factors(second);
  UpdateDistance result;
  Sums total;
  const auto refuse = [&] {
    throw Error(ErrorKind::incompatible, "cannot compare the updates of " + first.module_path +
                                             ": they have different shapes");
  };
  if (x.size() != y.size()) refuse();
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (x[i].a.shape.at(1) != y[i].a.shape.at(1) || x[i].b.shape.at(0) != y[i].b.shape.at(0))
      refuse();
    if (is_thin_pair(x[i]) && is_thin_pair(y[i])) {
      add_thin(x[i], y[i], total, result);
    } else {
      add_small(x[i], y[i], total, result);
    }
  }
  if (std::isnan(total.squares_a)) {
    result = {};
    result.norm_a = result.norm_b = result.difference = result.relative = result.cosine =
        result.best_scale = result.largest_angle = total.squares_a;
    return result;
  }
  std::sort(result.column_angles.begin(), result.column_angles.end());
  std::sort(result.row_angles.begin(), result.row_angles.end());
  std::sort(result.singular_values_a.rbegin(), result.singular_values_a.rend());
  std::sort(result.singular_values_b.rbegin(), result.singular_values_b.rend());
  result.norm_a = std::sqrt(total.squares_a);
  result.norm_b = std::sqrt(total.squares_b);
  result.difference = std::sqrt(total.squares);
  if (result.norm_a > 0) {
    result.relative = result.difference / result.norm_a;
    result.best_scale = total.inner / total.squares_a;
  } else {
    result.relative = result.norm_b > 0 ? std::numeric_limits<double>::infinity() : 0;
  }
  if (result.norm_a > 0 && result.norm_b > 0) {
    result.cosine = std::clamp(total.inner / (result.norm_a * result.norm_b), -1.0, 1.0);
  } else {
    result.cosine = result.norm_a == result.norm_b ? 1 : 0;
  }
  if (!result.column_angles.empty()) result.largest_angle = result.column_angles.back();
  return result;
}

}  // namespace lora
