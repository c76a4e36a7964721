#include "ops/numbers/truncate.h"

#include <Eigen/Dense>
#include <cmath>

#include "ops/extract/factors.h"
#include "ops/numbers/split_gram.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::numbers;
using namespace lora::testing;

namespace {

PanelMatrix panels_of(const Matrix& values) {
  PanelMatrix out(values.rows(), values.cols());
  for (Eigen::Index i = 0; i < values.rows(); ++i)
    for (Eigen::Index j = 0; j < values.cols(); ++j)
      out.at(i, j) = static_cast<float>(values(i, j));
  return out;
}

Matrix dense(const PanelMatrix& values) {
  Matrix out(values.rows(), values.columns());
  for (Eigen::Index i = 0; i < out.rows(); ++i)
    for (Eigen::Index j = 0; j < out.cols(); ++j) out(i, j) = values.at(i, j);
  return out;
}

Matrix random_matrix(std::int64_t rows, std::int64_t columns, std::uint64_t seed = 1) {
  const std::vector<float> values = normal_tensor("m", {rows, columns}, 1, seed).to_f32();
  Matrix out(rows, columns);
  for (Eigen::Index i = 0; i < rows; ++i)
    for (Eigen::Index j = 0; j < columns; ++j)
      out(i, j) = values[static_cast<std::size_t>(i * columns + j)];
  return out;
}

// Singular values that fall as 1 / (i + 1)^power; 0 is noise.
Matrix falling(std::int64_t rows, std::int64_t columns, double power) {
  const Eigen::JacobiSVD<Matrix> svd(random_matrix(rows, columns),
                                     Eigen::ComputeThinU | Eigen::ComputeThinV);
  if (power == 0) return dense(panels_of(random_matrix(rows, columns)));
  Vector values(columns);
  for (Eigen::Index i = 0; i < columns; ++i)
    values(i) = std::pow(static_cast<double>(i + 1), -power);
  return dense(panels_of(svd.matrixU() * values.asDiagonal() * svd.matrixV().transpose()));
}

RankRule fixed(std::int64_t rank) {
  return [rank](const std::vector<double>&) { return rank; };
}

}  // namespace

TEST_CASE("a truncation is as good as the full decomposition, and proves how good") {
  constexpr std::int64_t kRank = 8;
  for (const double power : {0.0, 0.5, 1.0, 2.0, 6.0}) {
    INFO("power " << power);
    const Matrix values = falling(200, 136, power);
    const Vector sigma = Eigen::JacobiSVD<Matrix>(values).singularValues();
    const double best = sigma.tail(sigma.size() - kRank).squaredNorm();
    const Truncation found =
        truncate(panels_of(values), values.squaredNorm(), fixed(kRank), "test", Purpose::proof);
    REQUIRE(!found.is_exact);
    const Matrix error =
        values - dense(found.left).leftCols(kRank) * dense(found.right).leftCols(kRank).transpose();
    // 1.001 of the least error, squared; f32 beneath.
    const double rounding = 1e-10 * values.squaredNorm();
    CHECK(error.squaredNorm() <= 1.002 * best + rounding);
    PanelMatrix left_out = panels_of(error);
    const double proven =
        least_squared_error(found, kRank, values.squaredNorm(), left_out, error.squaredNorm());
    CHECK(proven <= best + rounding);
    // Close enough to be worth printing, where f32 resolves it.
    if (best > 1e-3 * values.squaredNorm()) CHECK(proven >= 0.98 * best);
    for (std::int64_t i = 0; i < kRank; ++i)
      CHECK(found.energies[static_cast<std::size_t>(i)] <=
            sigma(i) * sigma(i) * (1 + 1e-6) + rounding);
  }
}

TEST_CASE("a search that began in the Gram matrix ends in the values where little is left out") {
  // What its rounding allows. A sketch leaves out a third more than the best approximation does.
  const double least = 256 * 2 * std::sqrt(8.0) * lower_gram_terms(300) * 0x1p-24;
  const Matrix factors = random_matrix(300, 8) * random_matrix(8, 200, 2);
  const Matrix noise = random_matrix(300, 200, 3);
  for (const double share : {0.85 * least, 0.95 * least, 2 * least}) {
    INFO("share of noise " << share);
    const Matrix values =
        dense(panels_of(factors / factors.norm() + std::sqrt(share) * noise / noise.norm()));
    const Vector sigma = Eigen::JacobiSVD<Matrix>(values).singularValues();
    const double best = sigma.tail(sigma.size() - 8).squaredNorm();
    Truncation found =
        truncate(panels_of(values), values.squaredNorm(), fixed(8), "test", Purpose::proof);
    REQUIRE((found.gram.columns() != 0) == (share > least));
    const Matrix error =
        values - dense(found.left).leftCols(8) * dense(found.right).leftCols(8).transpose();
    CHECK(error.squaredNorm() <= 1.001 * best);
    PanelMatrix left_out = panels_of(error);
    const double proven = least_squared_error(std::move(found), 8, values.squaredNorm(), left_out,
                                              error.squaredNorm());
    CHECK(proven <= best * (1 + 1e-6));
    CHECK(proven >= 0.98 * best);
  }
}

TEST_CASE("differences whose squares are beyond f32 get factors and a proof all the same") {
  const std::int64_t rows = 200, columns = 136;
  extraction::WorkSpace space(1 << 20);
  const Tensor zero = Tensor::from_f32({rows, columns}, std::vector<float>(200 * 136));
  for (const double scale : {1e-30, 1e-20, 1e-12, 1.0, 1e12, 1e20, 1e30}) {
    INFO("scale " << scale);
    const PanelMatrix tuned = panels_of(scale * random_matrix(rows, columns));
    const Matrix values = dense(tuned);
    std::vector<float> flat;
    for (Eigen::Index i = 0; i < rows; ++i)
      for (Eigen::Index j = 0; j < columns; ++j) flat.push_back(static_cast<float>(values(i, j)));
    const Vector sigma = Eigen::JacobiSVD<Matrix>(values).singularValues();
    const double best = sigma.tail(sigma.size() - 8).squaredNorm();
    const extraction::Factors factors =
        extraction::factor("w", zero, Tensor::from_f32({rows, columns}, flat), {8, std::nullopt},
                           false, DType::f32, space);
    const std::vector<float> a = factors.a.to_f32(), b = factors.b.to_f32();
    Matrix product = Matrix::Zero(rows, columns);
    for (Eigen::Index i = 0; i < rows; ++i)
      for (Eigen::Index j = 0; j < columns; ++j)
        for (Eigen::Index k = 0; k < 8; ++k)
          product(i, j) += static_cast<double>(b[static_cast<std::size_t>(i * 8 + k)]) *
                           a[static_cast<std::size_t>(k * columns + j)];
    const double error = (values - product).squaredNorm();
    CHECK(std::fabs(factors.squared_error - error) <= 1e-5 * error);
    CHECK(std::fabs(factors.squared_norm - values.squaredNorm()) <= 1e-6 * values.squaredNorm());
    CHECK(error <= 1.002 * best);
    CHECK(factors.least_squared_error <= best * (1 + 1e-6));
    CHECK(factors.least_squared_error >= 0.98 * best);
    const std::vector<double> energies =
        extraction::spectrum("w", zero, Tensor::from_f32({rows, columns}, flat), 8, space);
    CHECK(std::fabs(energies[0] - sigma(0) * sigma(0)) <= 0.02 * sigma(0) * sigma(0));
  }
}

TEST_CASE("factors in 16 bits are told the least error of the matrix, not of their rounding") {
  const std::int64_t rows = 300, columns = 300;
  extraction::WorkSpace space(1 << 20);
  const Tensor zero = Tensor::from_f32({rows, columns}, std::vector<float>(300 * 300));
  const Matrix signal = random_matrix(rows, 8) * random_matrix(8, columns, 2);
  const Matrix noise = random_matrix(rows, columns, 3);
  for (const double share : {1e-6, 1e-5, 1e-4, 1e-2, 0.5}) {
    INFO("share of noise " << share);
    std::vector<float> flat;
    const Matrix values =
        dense(panels_of(signal / signal.norm() + std::sqrt(share) * noise / noise.norm()));
    for (Eigen::Index i = 0; i < rows; ++i)
      for (Eigen::Index j = 0; j < columns; ++j) flat.push_back(static_cast<float>(values(i, j)));
    const Vector sigma = Eigen::BDCSVD<Matrix>(values).singularValues();
    const double best = sigma.tail(sigma.size() - 8).squaredNorm();
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
      const extraction::Factors factors =
          extraction::factor("w", zero, Tensor::from_f32({rows, columns}, flat), {8, std::nullopt},
                             false, dtype, space);
      CHECK(factors.least_squared_error <= best * (1 + 1e-6));
      CHECK(factors.squared_error >= best * (1 - 1e-6));
    }
  }
}

TEST_CASE("a Gram matrix is as exact as it says, with matrix units and without") {
  for (const auto& [rows, columns] :
       {std::pair(1, 1), std::pair(33, 70), std::pair(300, 64), std::pair(131, 97)})
    for (const double power : {0.0, 2.0}) {
      INFO(rows << " x " << columns << ", columns fall by the power " << power);
      Matrix values = random_matrix(rows, columns);
      for (int j = 0; j < columns; ++j) values.col(j) *= std::pow(j + 1, -power);
      values = dense(panels_of(values));
      const Matrix expected = values.transpose() * values;
      const Matrix magnitudes = values.cwiseAbs().transpose() * values.cwiseAbs();
      struct Made {
        PanelMatrix lower;
        double terms;
      };
      std::vector<Made> grams{{chained_gram(panels_of(values)), chained_gram_terms(rows)}};
      if (has_matrix_units())
        grams.push_back({split_gram(panels_of(values)), split_gram_terms(rows)});
      for (const Made& gram : grams) {
        REQUIRE(gram.terms < 1000);
        for (int i = 0; i < columns; ++i)
          for (int j = 0; j <= i; ++j)
            REQUIRE(std::fabs(gram.lower.at(i, j) - expected(i, j)) <=
                    gram.terms * 0x1p-24 * magnitudes(i, j));
      }
    }
}

TEST_CASE("a symmetric matrix is multiplied from its lower half") {
  const Matrix values = random_matrix(170, 101), thin = random_matrix(101, 40, 2);
  PanelMatrix out(101, 40);
  multiply_symmetric(lower_gram(panels_of(values)), panels_of(thin), out);
  const Matrix expected = values.transpose() * values * thin;
  CHECK((dense(out) - expected).norm() < 1e-5 * expected.norm());
}

TEST_CASE("small matrices and large ranks are decomposed whole") {
  for (const auto& [rows, columns, rank] :
       {std::tuple(40, 7, 3), std::tuple(300, 120, 60), std::tuple(33, 33, 33)}) {
    const Matrix values = falling(rows, columns, 1);
    const Truncation found =
        truncate(panels_of(values), values.squaredNorm(), fixed(rank), "test", Purpose::proof);
    REQUIRE(found.is_exact);
    REQUIRE(found.energies.size() == static_cast<std::size_t>(columns));
    const Vector sigma = Eigen::JacobiSVD<Matrix>(values).singularValues();
    for (Eigen::Index i = 0; i < columns; ++i)
      CHECK(std::fabs(found.energies[static_cast<std::size_t>(i)] - sigma(i) * sigma(i)) < 1e-12);
    const Matrix whole = dense(found.left) * dense(found.right).transpose();
    CHECK((values - whole).norm() < 1e-6);
    PanelMatrix unused;
    CHECK(std::fabs(least_squared_error(found, rank, values.squaredNorm(), unused, 0) -
                    sigma.tail(columns - rank).squaredNorm()) < 1e-12);
  }
}

TEST_CASE("a rule that wants more than was found gets a wider sketch") {
  const Matrix values = falling(400, 330, 1);
  const RankRule most = [&](const std::vector<double>& energies) -> std::int64_t {
    double kept = 0;
    for (std::size_t i = 0; i < energies.size(); ++i)
      if ((kept += energies[i]) >= 0.985 * values.squaredNorm())
        return static_cast<std::int64_t>(i + 1);
    return static_cast<std::int64_t>(energies.size()) + 1;
  };
  const Truncation found =
      truncate(panels_of(values), values.squaredNorm(), most, "test", Purpose::factors);
  const Vector sigma = Eigen::JacobiSVD<Matrix>(values).singularValues();
  std::int64_t rank = 0;
  for (double kept = 0; kept < 0.985 * values.squaredNorm(); ++rank)
    kept += sigma(rank) * sigma(rank);
  REQUIRE(rank > 24);
  REQUIRE(most(found.energies) == rank);
}

TEST_CASE("a factorisation exists exactly above the largest eigenvalue") {
  const Matrix values = random_matrix(150, 101);
  const PanelMatrix gram = chained_gram(panels_of(values));
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(values.transpose() * values);
  const double largest = solver.eigenvalues()(100);
  REQUIRE(cholesky_allowance(101) < 1e-3);
  for (const PanelKernels& level : available_panel_kernels()) {
    INFO(level.name);
    choose_panel_kernels(level);
    for (const auto& [factor, expected] :
         {std::pair(0.99, false), std::pair(0.9999, false), std::pair(1.0001, true)})
      CHECK(is_below(gram, factor * largest) == expected);
  }
}

TEST_CASE("every level of instructions multiplies alike") {
  const Matrix p = random_matrix(256, 32), q = random_matrix(256, 32, 2);
  const PanelMatrix left = panels_of(p), right = panels_of(q);
  for (const PanelKernels& kernels : available_panel_kernels()) {
    INFO(kernels.name);
    std::vector<float> out(8 * 32, 1.0F);
    kernels.columns({left.panel(0) + 8, 0, right.panel(0), 0, 256, 1, out.data(), Store::add});
    const Matrix columns = p.middleCols(8, 8).transpose() * q;
    kernels.rows(
        {left.panel(0) + 96 * 32, 0, right.panel(0), 1024, 32, 1, out.data(), Store::subtract});
    const Matrix rows = p.middleRows(96, 8) * q.topRows(32);
    for (Eigen::Index i = 0; i < 8; ++i)
      for (Eigen::Index j = 0; j < 32; ++j)
        CHECK(std::fabs(out[static_cast<std::size_t>(i * 32 + j)] -
                        (1 + columns(i, j) - rows(i, j))) < 1e-4);
    std::vector<double> sums(32 * 32, 0.5);
    kernels.gram(left.panel(0), right.panel(0), 256, sums.data());
    const Matrix gram = p.transpose() * q;
    std::vector<double> squares(32, 0.5);
    kernels.squares(left.panel(0), 256, squares.data());
    for (Eigen::Index j = 0; j < 32; ++j)
      CHECK(std::fabs(squares[static_cast<std::size_t>(j)] - 0.5 - p.col(j).squaredNorm()) < 1e-10);
    for (Eigen::Index i = 0; i < 32; ++i)
      for (Eigen::Index j = 0; j < 32; ++j)
        CHECK(std::fabs(sums[static_cast<std::size_t>(i * 32 + j)] - 0.5 - gram(i, j)) < 1e-10);
  }
}
