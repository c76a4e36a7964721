#include "ops/numbers/update_svd.h"

#include <Eigen/Dense>

#include "ops/dense.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::numbers;
using namespace lora::testing;

namespace {

UpdateFactor term(std::int64_t rows, std::int64_t rank, std::int64_t columns, double scaling,
                  std::uint64_t seed = 1) {
  return {normal_tensor("a", {rank, columns}, 0.3, seed),
          normal_tensor("b", {rows, rank}, 0.01, seed), scaling, 0, 0};
}

Matrix sum_of(const std::vector<UpdateFactor>& terms) {
  Matrix sum = Matrix::Zero(terms[0].b.shape[0], terms[0].a.shape[1]);
  for (const UpdateFactor& one : terms) sum += one.scaling * dense(one.b) * dense(one.a);
  return sum;
}

// Against the decomposition of the matrix itself, at every rank.
void check(const std::vector<UpdateFactor>& terms, bool expect_gram) {
  const Matrix sum = sum_of(terms);
  const Eigen::JacobiSVD<Matrix> exact(sum, Eigen::ComputeThinU | Eigen::ComputeThinV);
  const UpdateSvd svd(terms);
  CHECK(svd.is_from_gram() == expect_gram);
  const double largest = exact.singularValues()(0);
  const double resolution = (expect_gram ? 1e-7 : 1e-13) * largest;
  for (Eigen::Index i = 0; i < svd.values().size(); ++i)
    CHECK(std::fabs(svd.values()(i) - exact.singularValues()(i)) <= resolution);
  CHECK(std::fabs(svd.energy() - sum.squaredNorm()) <= 1e-12 * sum.squaredNorm());
  for (const Eigen::Index k : {1, 2, 5, static_cast<int>(svd.values().size())}) {
    if (k > svd.values().size()) continue;
    const Matrix u = svd.left(k), v = svd.right(k);
    const double best =
        std::sqrt(exact.singularValues().tail(exact.singularValues().size() - k).squaredNorm());
    const double found = (sum - u * svd.values().head(k).asDiagonal() * v.transpose()).norm();
    CHECK(found <= best + 1e-12 * largest * static_cast<double>(k) + 2e-8 * (best > 0) * best);
    const SplitFactors split = split_factors(svd, k, -0.5);
    CHECK((sum + 0.5 * split.b * split.a).norm() <= best + 1e-11 * largest + 2e-8 * best);
    if (svd.values()(k - 1) < 1e-4 * largest) continue;
    CHECK((u.transpose() * u - Matrix::Identity(k, k)).cwiseAbs().maxCoeff() < 1e-7);
    CHECK((v.transpose() * v - Matrix::Identity(k, k)).cwiseAbs().maxCoeff() < 1e-8);
  }
}

}  // namespace

TEST_CASE("the decomposition of one product is that of the matrix", "[svd]") {
  check({term(40, 4, 30, 2)}, false);
  check({term(70, 16, 50, 2)}, true);
  check({term(50, 20, 71, -0.3)}, true);
}

TEST_CASE("a rank above a dimension is decomposed through the smaller matrix", "[svd]") {
  check({term(2, 4, 20, 2)}, false);
  check({term(20, 9, 3, 1)}, false);
  check({term(5, 12, 7, 1)}, false);
  check({term(1, 1, 1, 3)}, false);
}

TEST_CASE("several products are decomposed together, with weights of either sign", "[svd]") {
  check({term(60, 6, 64, 2, 1), term(60, 10, 64, -1.5, 2)}, true);
  check({term(60, 3, 64, 2, 1), term(60, 1, 64, 0.5, 2), term(60, 2, 64, 1, 3)}, false);
}

TEST_CASE("equal rank rows in both factors are decomposed the careful way", "[svd]") {
  // The same adapter three times: neither factor has independent rows.
  check({term(60, 6, 64, 2), term(60, 6, 64, 1), term(60, 6, 64, -1)}, false);
}

TEST_CASE("products of the same A are inverted on the side of B", "[svd]") {
  UpdateFactor second = term(80, 8, 64, 1, 2);
  second.a = term(80, 8, 64, 1, 1).a;
  check({term(80, 8, 64, 1, 1), second}, true);
}

TEST_CASE("dead rank rows and zero products", "[svd]") {
  UpdateFactor one = term(40, 12, 50, 2);
  std::vector<float> a = one.a.to_f32();
  std::fill(a.begin() + 50, a.begin() + 200, 0.F);
  one.a = Tensor::from_f32({12, 50}, a);
  check({one}, true);
  const UpdateFactor zero{Tensor::from_f32({12, 50}, std::vector<float>(600, 0)), one.b, 2, 0, 0};
  const UpdateSvd svd({zero});
  CHECK(svd.energy() == 0);
  CHECK(svd.left(3).isZero(0));
  CHECK(split_factors(svd, 3, 2).a.isZero(0));
}

TEST_CASE("rank rows of very different lengths lose nothing", "[svd]") {
  UpdateFactor one = term(90, 12, 80, 1);
  std::vector<float> a = one.a.to_f32(), b = one.b.to_f32();
  for (std::size_t i = 0; i < a.size(); ++i) a[i] *= i / 80 % 2 == 0 ? 1e12F : 1e-12F;
  for (std::size_t i = 0; i < b.size(); ++i) b[i] *= i % 12 % 2 == 0 ? 1e-12F : 1e12F;
  one.a = Tensor::from_f32({12, 80}, a);
  one.b = Tensor::from_f32({90, 12}, b);
  check({one}, true);
}

TEST_CASE("factors in 16 and 64 bits", "[svd]") {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f64}) {
    UpdateFactor one = term(67, 11, 43, 1);
    one.a = one.a.cast(dtype);
    one.b = one.b.cast(dtype);
    check({one}, true);
  }
}

TEST_CASE("more directions than there are become zero", "[svd]") {
  const UpdateSvd svd({term(20, 3, 10, 2)});
  const SplitFactors split = split_factors(svd, 8, 2);
  CHECK(split.a.rows() == 8);
  CHECK(split.a.bottomRows(5).isZero(0));
  CHECK(split.b.rightCols(5).isZero(0));
}
