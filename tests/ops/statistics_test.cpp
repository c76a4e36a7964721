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

TEST_CASE("statistics count zero rows, the zero tail and denormals of the dtype") {
  std::vector<float> values(8 * 6, 1.0F);
  for (const std::size_t row : {1, 6, 7})
    for (std::size_t i = 0; i < 6; ++i) values[row * 6 + i] = 0;
  values[3] = 1e-40F;
  const TensorStatistics statistics = statistics_of(Tensor::from_f32({8, 6}, values));
  REQUIRE(statistics.rows == 8);
  REQUIRE(statistics.zero_rows == 3);
  REQUIRE(statistics.zero_tail_rows == 2);
  REQUIRE(statistics.denormal_count == 1);
  REQUIRE(!statistics.is_all_zero);
  const std::vector<float> small{1e-5F, 1.0F};
  REQUIRE(statistics_of(Tensor::from_f32({2}, small).cast(DType::f16)).denormal_count == 1);
  REQUIRE(statistics_of(Tensor::from_f32({2}, small).cast(DType::bf16)).denormal_count == 0);
}

TEST_CASE("a negative zero is zero, a NaN is not") {
  std::vector<float> values(4, -0.0F);
  REQUIRE(statistics_of(Tensor::from_f32({2, 2}, values)).is_all_zero);
  values[3] = std::numeric_limits<float>::quiet_NaN();
  const TensorStatistics statistics = statistics_of(Tensor::from_f32({2, 2}, values));
  REQUIRE(!statistics.is_all_zero);
  REQUIRE(statistics.zero_rows == 1);
}

TEST_CASE("statistics of all dtypes equal a recomputation in f64, far from zero too") {
  std::vector<float> values = normal_tensor("far", {31, 333}).to_f32();
  for (float& value : values) value = 1000 + value;
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
    const Tensor tensor = Tensor::from_f32({31, 333}, values).cast(dtype);
    const std::vector<double> exact = tensor.to_f64();
    const Eigen::Map<const Eigen::VectorXd> v(exact.data(), 31 * 333);
    const TensorStatistics statistics = statistics_of(tensor);
    REQUIRE(statistics.mean == Approx(v.mean()).epsilon(1e-12));
    REQUIRE(statistics.norm == Approx(v.norm()).epsilon(1e-12));
    REQUIRE(
        statistics.std ==
        Approx(std::sqrt((v.array() - v.mean()).square().sum() / (31 * 333 - 1))).epsilon(1e-9));
    REQUIRE(statistics.min == v.minCoeff());
    REQUIRE(statistics.max == v.maxCoeff());
  }
}

TEST_CASE("figures of large factors equal the dense recomputation to 1e-6 and better") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    LoraModule module = module_of(normal_tensor("a", {16, 700}).cast(dtype),
                                  normal_tensor("b", {600, 16}, 0.01).cast(dtype), 2);
    // A spread of scales over the rank rows, as trained factors have.
    std::vector<float> b = module.b.to_f32();
    for (std::size_t i = 0; i < b.size(); ++i)
      b[i] *= static_cast<float>(std::pow(0.5, static_cast<double>(i % 16)));
    module.b = Tensor::from_f32({600, 16}, b).cast(dtype);
    const Eigen::MatrixXd delta = dense(module);
    const Eigen::VectorXd sigma = Eigen::BDCSVD<Eigen::MatrixXd>(delta).singularValues().head(16);
    const UpdateStatistics statistics = update_statistics(module);
    REQUIRE(statistics.norm == Approx(delta.norm()).epsilon(1e-12));
    REQUIRE(statistics.mean == Approx(delta.mean()).margin(1e-12));
    for (std::size_t i = 0; i < 16; ++i)
      REQUIRE(statistics.singular_values[i] ==
              Approx(sigma(static_cast<Eigen::Index>(i))).epsilon(1e-6));
    const double share = sigma(0) * sigma(0) / delta.squaredNorm();
    REQUIRE(statistics.concentration == Approx(share).epsilon(1e-9));
    REQUIRE(statistics.dead_rank_rows.empty());
    REQUIRE(statistics.duplicate_rank_rows.empty());
  }
}

TEST_CASE("dead and duplicate rank rows are named, a subtracted start is neither") {
  std::vector<float> a = normal_tensor("a", {4, 30}).to_f32();
  std::vector<float> b = normal_tensor("b", {25, 4}).to_f32();
  for (std::size_t i = 0; i < 30; ++i) a[3 * 30 + i] = -2 * a[30 + i];  // row 3 = -2 row 1
  for (std::size_t o = 0; o < 25; ++o) b[o * 4 + 3] = -b[o * 4 + 1];
  for (std::size_t o = 0; o < 25; ++o) b[o * 4 + 2] = 0;
  const auto figures = [&] {
    return update_statistics(
        module_of(Tensor::from_f32({4, 30}, a), Tensor::from_f32({25, 4}, b), 1));
  };
  REQUIRE(figures().dead_rank_rows == std::vector<std::int64_t>{2});
  REQUIRE(figures().duplicate_rank_rows ==
          std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 3}});
  // B opposes: the difference to a stored start, as PEFT converts PiSSA adapters.
  for (std::size_t o = 0; o < 25; ++o) b[o * 4 + 3] = 0.5F * b[o * 4 + 1];
  REQUIRE(figures().duplicate_rank_rows.empty());
}

TEST_CASE("products that cancel are a zero update") {
  std::vector<float> a = normal_tensor("a", {2, 40}).to_f32();
  std::vector<float> b = normal_tensor("b", {30, 2}).to_f32();
  a.insert(a.end(), a.begin(), a.end());
  std::vector<float> both;
  for (std::size_t o = 0; o < 30; ++o)
    for (const float sign : {1.0F, -1.0F})
      for (std::size_t r = 0; r < 2; ++r) both.push_back(sign * b[o * 2 + r]);
  const UpdateStatistics statistics = update_statistics(
      module_of(Tensor::from_f32({4, 40}, a), Tensor::from_f32({30, 4}, both), 1));
  REQUIRE(statistics.norm == 0);
  REQUIRE(statistics.singular_values == std::vector<double>(4, 0.0));
}

TEST_CASE("principal angles of both sides are those of the singular vectors") {
  // Outputs in the planes (e0, e1) and (e0, cos t e1 + sin t e2); inputs equal and orthogonal.
  const double t = 0.5;
  std::vector<float> b1(6 * 2, 0.0F), b2(6 * 2, 0.0F), a1(2 * 6, 0.0F), a2(2 * 6, 0.0F);
  b1[0 * 2 + 0] = 1, b1[1 * 2 + 1] = 1;
  b2[0 * 2 + 0] = 1;
  b2[1 * 2 + 1] = static_cast<float>(std::cos(t));
  b2[2 * 2 + 1] = static_cast<float>(std::sin(t));
  a1[0] = 3, a1[6 + 1] = 2;
  a2[0] = 1, a2[6 + 4] = 2;
  const UpdateDistance distance =
      update_distance(module_of(Tensor::from_f32({2, 6}, a1), Tensor::from_f32({6, 2}, b1), 1),
                      module_of(Tensor::from_f32({2, 6}, a2), Tensor::from_f32({6, 2}, b2), 1));
  REQUIRE(distance.column_angles.size() == 2);
  REQUIRE(distance.column_angles[0] == 0);
  REQUIRE(distance.column_angles[1] == Approx(t * 180 / 3.14159265358979).epsilon(1e-6));
  REQUIRE(distance.row_angles[0] == 0);
  REQUIRE(distance.row_angles[1] == Approx(90));
  REQUIRE(distance.singular_values_a == std::vector<double>{3, 2});
}

TEST_CASE("a scaled update has that scale as its best scale") {
  const LoraModule module = module_of(normal_tensor("a", {4, 30}), normal_tensor("b", {25, 4}), 2);
  LoraModule scaled = module;
  scaled.scaling = 0.5;
  REQUIRE(update_distance(module, scaled).best_scale == Approx(0.25));
  REQUIRE(update_distance(module, scaled).relative == Approx(0.75));
}

TEST_CASE("distances of ranks above a dimension are those of the materialised updates") {
  const LoraModule first = module_of(normal_tensor("a", {9, 5}), normal_tensor("b", {6, 9}), 1);
  const LoraModule second = module_of(normal_tensor("c", {2, 5}), normal_tensor("d", {6, 2}), 1);
  const UpdateDistance distance = update_distance(first, second);
  REQUIRE(distance.difference == Approx((dense(first) - dense(second)).norm()).epsilon(1e-12));
  REQUIRE(distance.column_angles.size() == 2);
}

TEST_CASE("distances of updates with NaN are NaN, of other shapes refused") {
  LoraModule broken = module_of(normal_tensor("a", {2, 9}), normal_tensor("b", {9, 2}), 1);
  const LoraModule sound = broken;
  std::vector<float> values = broken.a.to_f32();
  values[0] = std::numeric_limits<float>::quiet_NaN();
  broken.a = Tensor::from_f32({2, 9}, values);
  REQUIRE(std::isnan(update_distance(sound, broken).difference));
  REQUIRE(update_statistics(broken).norm == 0);
  require_error(ErrorKind::incompatible, "different shapes", [&] {
    update_distance(sound, module_of(normal_tensor("a", {2, 8}), normal_tensor("b", {9, 2}), 1));
  });
}
