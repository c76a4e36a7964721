#include "ops/numbers/top_svd.h"

#include <Eigen/Dense>

#include "lora/base/random.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::numbers;

namespace {

using FloatRows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Tensor tensor_of(const FloatRows& matrix) {
  return Tensor::from_f32({matrix.rows(), matrix.cols()},
                          std::vector<float>(matrix.data(), matrix.data() + matrix.size()));
}

FloatRows noise(Eigen::Index rows, Eigen::Index columns) {
  FloatRows matrix(rows, columns);
  const CounterRandom random(1, 2);
  for (Eigen::Index i = 0; i < matrix.size(); ++i)
    matrix.data()[i] = static_cast<float>(random.normal(static_cast<std::uint64_t>(i)));
  return matrix;
}

// Singular values as given, directions at random.
FloatRows with_values(Eigen::Index rows, Eigen::Index columns, const std::vector<double>& values) {
  const auto random = [&](Eigen::Index size, std::uint64_t stream) {
    const CounterRandom source(3, stream);
    Matrix m(size, static_cast<Eigen::Index>(values.size()));
    std::uint64_t index = 0;
    for (double& value : m.reshaped()) value = source.normal(index++);
    const Eigen::HouseholderQR<Matrix> qr(m);
    return Matrix(qr.householderQ() * Matrix::Identity(m.rows(), m.cols()));
  };
  const Vector s =
      Eigen::Map<const Vector>(values.data(), static_cast<Eigen::Index>(values.size()));
  return (random(rows, 1) * s.asDiagonal() * random(columns, 2).transpose()).cast<float>();
}

// As close to the matrix as the decomposition of the whole, up to a share of its energy.
void check(const FloatRows& matrix, std::int64_t rank, double slack = 1e-9,
           Accuracy accuracy = Accuracy::energy) {
  const Tensor tensor = tensor_of(matrix);
  const TopSvd found = top_svd(MatrixView(tensor), rank, "test", accuracy);
  const Matrix whole = matrix.cast<double>();
  const Eigen::BDCSVD<Matrix> exact(whole, Eigen::ComputeThinU | Eigen::ComputeThinV);
  const Eigen::Index k = found.values.size();
  REQUIRE(k == std::min<Eigen::Index>(rank, std::min(matrix.rows(), matrix.cols())));
  CHECK(found.energy == Approx(whole.squaredNorm()).epsilon(1e-12));
  const double best = exact.singularValues().tail(exact.singularValues().size() - k).squaredNorm();
  const Matrix rest = whole - found.left * found.values.asDiagonal() * found.right.transpose();
  CHECK(rest.squaredNorm() <= best + slack * whole.squaredNorm());
  CHECK((found.values - exact.singularValues().head(k)).norm() <= 1e-6 * exact.singularValues()(0));
  if (whole.squaredNorm() == 0) return;
  const Matrix identity = Matrix::Identity(k, k);
  if (found.values(k - 1) < 1e-4 * found.values(0)) return;
  CHECK((found.left.transpose() * found.left - identity).cwiseAbs().maxCoeff() < 1e-6);
  CHECK((found.right.transpose() * found.right - identity).cwiseAbs().maxCoeff() < 1e-6);
}

}  // namespace

TEST_CASE("the top of a matrix is that of its whole decomposition", "[numbers]") {
  std::vector<double> falling, flat(150, 1.0), few{5, 4, 3};
  for (int i = 0; i < 150; ++i) falling.push_back(std::pow(0.95, i));
  check(with_values(30, 50, {4, 3, 2, 1}), 3);
  check(with_values(176, 200, falling), 16);
  check(with_values(220, 170, falling), 8);
  // Equal values, told apart by their rounding to f32 alone: 4 of 150 squares, each by 2^-22.
  check(with_values(176, 200, flat), 4, 4 * 0x1p-22 / 150);
  check(with_values(176, 200, few), 16);
  check(with_values(176, 200, falling), 100);
  check(with_values(176, 200, falling), 1000);
  check(FloatRows::Zero(176, 200), 4);
  // One element: the space has nothing more to give after a step.
  FloatRows single = FloatRows::Zero(176, 200);
  single(7, 9) = 3;
  check(single, 5);
}

TEST_CASE("the top of a sparse matrix of noise is found too", "[numbers]") {
  FloatRows matrix = noise(180, 260);
  const CounterRandom random(1, 3);
  for (Eigen::Index i = 0; i < matrix.size(); ++i)
    if (random.uniform(static_cast<std::uint64_t>(i)) < 0.8) matrix.data()[i] = 0;
  check(matrix, 12);
}

TEST_CASE("vectors of noise are those of the whole decomposition", "[numbers]") {
  // Neighbouring values are a percent apart here, and mixed by what suffices for the energy.
  const FloatRows matrix = noise(420, 600);
  const Matrix whole = matrix.cast<double>();
  const Eigen::BDCSVD<Matrix> exact(whole, Eigen::ComputeThinU | Eigen::ComputeThinV);
  for (const std::int64_t rank : {1, 7, 16}) {
    check(matrix, rank, 1e-9, Accuracy::vectors);
    check(matrix.transpose(), rank, 1e-9, Accuracy::vectors);
    const Tensor tensor = tensor_of(matrix);
    const TopSvd found = top_svd(MatrixView(tensor), rank, "test", Accuracy::vectors);
    const Matrix best = exact.matrixU().leftCols(rank) *
                        exact.singularValues().head(rank).asDiagonal() *
                        exact.matrixV().leftCols(rank).transpose();
    const Matrix ours = found.left * found.values.asDiagonal() * found.right.transpose();
    CHECK((ours - best).norm() < 1e-6 * best.norm());
  }
}

TEST_CASE("the top of a checkpoint's own dtypes is that of their values", "[numbers]") {
  const Tensor single = tensor_of(noise(200, 240));
  for (const DType dtype : {DType::f16, DType::bf16, DType::f64}) {
    const Tensor stored = single.cast(dtype), widened = stored.cast(DType::f32);
    const TopSvd one = top_svd(MatrixView(stored), 4, "test", Accuracy::vectors);
    const TopSvd two = top_svd(MatrixView(widened), 4, "test", Accuracy::vectors);
    CHECK(one.values == two.values);
    CHECK(one.left == two.left);
  }
}
