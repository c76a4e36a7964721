#include "lora/ops/statistics.h"

#include <Eigen/Dense>
#include <cmath>
#include <limits>

#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

LoraModule module_of(Tensor a, Tensor b, double scaling) {
  LoraModule module;
  module.module_path = "layer";
  module.rank = a.shape[0];
  module.scaling = scaling;
  module.a = std::move(a);
  module.b = std::move(b);
  return module;
}

// scaling * B . A, materialised in f64: what the statistics must not need.
Eigen::MatrixXd dense(const LoraModule& module) {
  using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const auto a = module.a.to_f64();
  const auto b = module.b.to_f64();
  return module.scaling *
         (Eigen::Map<const RowMajor>(b.data(), module.b.shape[0], module.b.shape[1]) *
          Eigen::Map<const RowMajor>(a.data(), module.a.shape[0], module.a.shape[1]));
}

// The same update in another gauge: A -> G A, B -> B G^-1.
LoraModule regauged(const LoraModule& module) {
  LoraModule other = module;
  std::vector<double> a = module.a.to_f64();
  std::vector<double> b = module.b.to_f64();
  const auto rank = static_cast<std::size_t>(module.rank);
  const std::size_t width = a.size() / rank;
  for (std::size_t r = 0; r < rank; ++r) {
    const double factor = std::ldexp(1.0, static_cast<int>(r) - 1);  // exact in f32
    for (std::size_t i = 0; i < width; ++i) a[r * width + i] *= factor;
    for (std::size_t o = 0; o < b.size() / rank; ++o) b[o * rank + r] /= factor;
  }
  const std::vector<float> a32(a.begin(), a.end());
  const std::vector<float> b32(b.begin(), b.end());
  other.a = Tensor::from_f32(module.a.shape, a32);
  other.b = Tensor::from_f32(module.b.shape, b32);
  return other;
}

}  // namespace

TEST_CASE("update statistics equal those of the materialised update") {
  for (const std::int64_t rank : {1, 3, 8, 40}) {
    const LoraModule module =
        module_of(normal_tensor("a", {rank, 30}), normal_tensor("b", {25, rank}), 1.75);
    const Eigen::MatrixXd delta = dense(module);
    const UpdateStatistics statistics = update_statistics(module);
    REQUIRE(statistics.norm == Approx(delta.norm()).epsilon(1e-12));
    REQUIRE(statistics.mean == Approx(delta.mean()).margin(1e-12));
    const double deviations = (delta.array() - delta.mean()).square().sum();
    REQUIRE(statistics.std ==
            Approx(std::sqrt(deviations / (static_cast<double>(delta.size()) - 1))).epsilon(1e-10));
    const Eigen::VectorXd sigma = Eigen::JacobiSVD<Eigen::MatrixXd>(delta).singularValues();
    for (std::size_t i = 0; i < statistics.singular_values.size(); ++i)
      REQUIRE(statistics.singular_values[i] ==
              Approx(sigma(static_cast<Eigen::Index>(i))).margin(1e-10));
  }
}

TEST_CASE("effective and stable rank of an update with equal singular values are its rank") {
  std::vector<float> a(3 * 6, 0.0F), b(5 * 3, 0.0F);
  for (std::size_t r = 0; r < 3; ++r) {
    a[r * 6 + r] = 2;
    b[r * 3 + r] = 3;
  }
  const UpdateStatistics statistics =
      update_statistics(module_of(Tensor::from_f32({3, 6}, a), Tensor::from_f32({5, 3}, b), 1));
  REQUIRE(statistics.effective_rank == Approx(3));
  REQUIRE(statistics.stable_rank == Approx(3));
}

TEST_CASE("the distance of two updates equals that of the materialised ones") {
  const LoraModule first = module_of(normal_tensor("a1", {4, 30}), normal_tensor("b1", {25, 4}), 2);
  const LoraModule second =
      module_of(normal_tensor("a2", {7, 30}), normal_tensor("b2", {25, 7}), 0.5);
  const UpdateDistance distance = update_distance(first, second);
  const Eigen::MatrixXd x = dense(first);
  const Eigen::MatrixXd y = dense(second);
  REQUIRE(distance.difference == Approx((x - y).norm()).epsilon(1e-12));
  REQUIRE(distance.relative == Approx((x - y).norm() / x.norm()).epsilon(1e-12));
  REQUIRE(distance.cosine ==
          Approx((x.array() * y.array()).sum() / (x.norm() * y.norm())).margin(1e-12));
}

TEST_CASE("the same update in another gauge and at another scaling has no distance") {
  const LoraModule module = module_of(normal_tensor("a", {4, 30}), normal_tensor("b", {25, 4}), 2);
  const LoraModule other = regauged(module);
  const UpdateDistance distance = update_distance(module, other);
  REQUIRE(distance.norm_a > 1);
  // Far below what the difference of squared norms could resolve (1e-8).
  REQUIRE(distance.relative < 1e-13);
  REQUIRE(distance.cosine == Approx(1).margin(1e-12));
  REQUIRE(distance.largest_angle < 1e-5);
}

TEST_CASE("updates with orthogonal outputs are at 90 degrees") {
  std::vector<float> top(4 * 1, 0.0F), bottom(4 * 1, 0.0F);
  top[0] = 1;
  bottom[3] = 1;
  const Tensor a = normal_tensor("a", {1, 5});
  const UpdateDistance distance =
      update_distance(module_of(a, Tensor::from_f32({4, 1}, top), 1),
                      module_of(a, Tensor::from_f32({4, 1}, bottom), 1));
  REQUIRE(distance.largest_angle == Approx(90));
  REQUIRE(distance.cosine == Approx(0).margin(1e-15));
}

TEST_CASE("distances of zero updates are defined") {
  const std::vector<float> zeros(8, 0.0F);
  const Tensor a = normal_tensor("a", {2, 3});
  const LoraModule zero = module_of(a, Tensor::from_f32({4, 2}, zeros), 1);
  const LoraModule some = module_of(a, normal_tensor("b", {4, 2}), 1);
  REQUIRE(update_distance(zero, zero).relative == 0);
  REQUIRE(update_distance(zero, zero).cosine == 1);
  REQUIRE(std::isinf(update_distance(zero, some).relative));
  REQUIRE(update_distance(some, zero).relative == Approx(1));
}

TEST_CASE("statistics count values that are not finite and find the first") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> values{1, 2, nan, 3, -inf, nan};
  const TensorStatistics statistics = statistics_of(Tensor::from_f32({6}, values));
  REQUIRE(statistics.nan_count == 2);
  REQUIRE(statistics.inf_count == 1);
  REQUIRE(statistics.first_non_finite == 2);
  REQUIRE(statistics.mean == Approx(2));
  REQUIRE(statistics.std == Approx(1));
  REQUIRE(statistics.count == 3);
}

TEST_CASE("statistics of integers are refused") {
  const std::vector<std::int64_t> values{1, 2};
  require_error(ErrorKind::unsupported, "I64",
                [&] { statistics_of(Tensor::from_i64({2}, values)); });
}
