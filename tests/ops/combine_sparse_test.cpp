// combine: trimming, dropping and electing signs, on factors, on updates and in a common basis,
// against the definitions written out in f64.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/combine/recipe.h"
#include "ops/combine/sparse.h"
#include "ops/combine_bench.h"

using namespace lora;
using namespace lora::combining;
using namespace lora::testing;

namespace {

using Adapters = std::vector<std::pair<fs::path, double>>;

// The k largest magnitudes, of equal ones the first.
Dense kept_largest(Dense values, double density) {
  std::vector<Eigen::Index> order(static_cast<std::size_t>(values.size()));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<Eigen::Index>(i);
  double* data = values.data();
  std::stable_sort(order.begin(), order.end(), [&](Eigen::Index a, Eigen::Index b) {
    return std::fabs(static_cast<float>(data[a])) > std::fabs(static_cast<float>(data[b]));
  });
  const auto k = static_cast<std::size_t>(density * static_cast<double>(values.size()));
  for (std::size_t i = k; i < order.size(); ++i) data[order[i]] = 0;
  return values;
}

Dense dropped(Dense values, double density, std::uint64_t seed, const std::string& stream) {
  const CounterRandom random(seed, stream_of(stream));
  for (Eigen::Index i = 0; i < values.size(); ++i) {
    const std::uint32_t word =
        random.block(static_cast<std::uint64_t>(i) / 4)[static_cast<std::size_t>(i) % 4];
    values.data()[i] = static_cast<double>(word) < std::floor(density * 4294967296.0)
                           ? values.data()[i] / density
                           : 0;
  }
  return values;
}

double sign(double value) { return value > 0 ? 1 : value < 0 ? -1 : 0; }

Dense elected(const std::vector<Dense>& values, const std::vector<double>& weights,
              MajoritySign method, bool is_unweighted) {
  Dense out = Dense::Zero(values[0].rows(), values[0].cols());
  for (Eigen::Index k = 0; k < out.size(); ++k) {
    double votes = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double vote = (is_unweighted ? 1 : weights[i]) * values[i].data()[k];
      votes += method == MajoritySign::total ? vote : sign(vote);
    }
    const double major = votes >= 0 ? 1 : -1;
    double sum = 0, count = 0;
    for (std::size_t i = 0; i < values.size(); ++i)
      if (sign((is_unweighted ? 1 : weights[i]) * values[i].data()[k]) == major) {
        sum += weights[i] * values[i].data()[k];
        ++count;
      }
    out.data()[k] = sum / std::max(1.0, count);
  }
  return out;
}

Dense added(const std::vector<Dense>& values, const std::vector<double>& weights) {
  Dense out = Dense::Zero(values[0].rows(), values[0].cols());
  for (std::size_t i = 0; i < values.size(); ++i) out += weights[i] * values[i];
  return out;
}

Dense truncated(const Dense& matrix, Eigen::Index rank) {
  const Eigen::JacobiSVD<Eigen::MatrixXd> svd(matrix, Eigen::ComputeThinU | Eigen::ComputeThinV);
  const Eigen::Index k = std::min(rank, svd.singularValues().size());
  return svd.matrixU().leftCols(k) * svd.singularValues().head(k).asDiagonal() *
         svd.matrixV().leftCols(k).transpose();
}

// The method, by its parts: what is done to each matrix, and how they are joined.
Dense sparse(CombineMethod method, std::vector<Dense> values, const std::vector<double>& weights,
             const CombineOptions& options, const std::string& matrix) {
  const std::string name(to_string(method));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = name.starts_with("dare") ? dropped(values[i], *options.density, options.seed,
                                                   "combine/" + std::to_string(i) + "/" + matrix)
                                         : kept_largest(values[i], *options.density);
  return name.find("ties") != std::string::npos
             ? elected(values, weights, options.majority_sign, options.compat.has_value())
             : added(values, weights);
}

Dense on_factors(CombineMethod method, const Adapters& adapters, const CombineOptions& options) {
  std::vector<Dense> a, b;
  std::vector<double> weights_a, weights_b;
  for (const auto& [path, weight] : adapters) {
    const LoraModule module = *open_adapter(path).find("fc1");
    const double u = weight * module.scaling;
    a.push_back(dense(module.a));
    b.push_back(dense(module.b));
    weights_a.push_back(std::copysign(std::sqrt(std::fabs(u)), u));
    weights_b.push_back(std::sqrt(std::fabs(u)));
  }
  return sparse(method, b, weights_b, options, "fc1.lora_B") *
         sparse(method, a, weights_a, options, "fc1.lora_A");
}

Dense on_updates(CombineMethod method, const Adapters& adapters, const CombineOptions& options) {
  std::vector<Dense> updates;
  std::vector<double> weights;
  for (const auto& [path, weight] : adapters) {
    const LoraModule module = *open_adapter(path).find("fc1");
    updates.push_back(update_of(module).cast<float>().cast<double>());
    weights.push_back(weight * (options.compat == PeftCompat::v0_20 ? module.scaling : 1));
  }
  return sparse(method, updates, weights, options, "fc1");
}

void require_near(const Dense& found, const Dense& expected) {
  INFO("distance " << (found - expected).norm() << " of " << expected.norm());
  REQUIRE((found - expected).norm() <= 1e-6 * std::max(1.0, expected.norm()));
}

}  // namespace

TEST_CASE("trimming keeps the largest magnitudes, of equal ones the first", "[combine]") {
  std::vector<double> values{3, -1, 2, -3, 0, 2, -2, 0.5, 3, 1};
  for (const double density : {0.01, 0.1, 0.25, 0.3, 0.5, 0.65, 0.99, 1.0}) {
    Dense expected = Eigen::Map<const Dense>(values.data(), 1, 10);
    expected = kept_largest(expected, density);
    std::vector<double> found = values;
    Trim trim(10, density);
    for (int pass = 0; pass < 2; ++pass) {
      // In runs of any length.
      trim.see(std::span(found).first(3));
      trim.see(std::span(found).subspan(3));
      trim.settle();
    }
    trim.keep(std::span(found).first(7));
    trim.keep(std::span(found).subspan(7));
    for (std::size_t i = 0; i < found.size(); ++i)
      CHECK(found[i] == expected(0, static_cast<Eigen::Index>(i)));
  }
}

TEST_CASE("dropping keeps the share, does not depend on runs, and keeps the mean", "[combine]") {
  std::vector<double> whole(100000, 1.0), parts(100000, 1.0);
  Drop(7, 3, 0.3).keep(whole, 0);
  Drop drop(7, 3, 0.3);
  for (std::size_t at = 0; at < parts.size(); at += 777)
    drop.keep(std::span(parts).subspan(at, std::min<std::size_t>(777, parts.size() - at)), at);
  CHECK(whole == parts);
  const auto kept = std::count_if(whole.begin(), whole.end(), [](double v) { return v != 0; });
  // Five deviations of a binomial: sqrt(n p q) = 145.
  CHECK(std::abs(static_cast<double>(kept) - 30000) < 725);
  CHECK(*std::max_element(whole.begin(), whole.end()) == 1 / 0.3);
}

TEST_CASE("the sparse methods on factors are what they are defined as", "[combine]") {
  CombineBench bench;
  const Adapters adapters{
      {bench.add("a", 4, 8), 0.9}, {bench.add("b", 4, 2), -0.6}, {bench.add("c", 4, 12), 1.3}};
  for (const auto method : {CombineMethod::ties, CombineMethod::dare_linear,
                            CombineMethod::dare_ties, CombineMethod::magnitude_prune})
    for (const auto sign_method : {MajoritySign::total, MajoritySign::frequency})
      for (const std::optional<PeftCompat> compat :
           {std::optional<PeftCompat>(), std::optional(PeftCompat::v0_20),
            std::optional(PeftCompat::v0_21)}) {
        CombineOptions options;
        options.density = 0.4;
        options.seed = 11;
        options.majority_sign = sign_method;
        options.compat = compat;
        INFO(to_string(method) << (compat ? " as in PEFT" : ""));
        bench.run(method, adapters, options);
        require_near(update_of(bench.result(), "fc1"), on_factors(method, adapters, options));
      }
}

TEST_CASE("the sparse methods on updates are what they are defined as", "[combine]") {
  CombineBench bench;
  const Adapters adapters{
      {bench.add("a", 4, 8), 0.9}, {bench.add("b", 3, 2), -0.6}, {bench.add("c", 1, 5), 1.3}};
  for (const auto method : {CombineMethod::ties_svd, CombineMethod::dare_linear_svd,
                            CombineMethod::dare_ties_svd, CombineMethod::magnitude_prune_svd})
    for (const std::optional<PeftCompat> compat :
         {std::optional<PeftCompat>(), std::optional(PeftCompat::v0_20),
          std::optional(PeftCompat::v0_21)})
      for (const std::int64_t rank : {2, 10}) {
        CombineOptions options;
        options.density = 0.4;
        options.seed = 5;
        options.rank = rank;
        options.compat = compat;
        INFO(to_string(method) << " at rank " << rank << (compat ? " as in PEFT" : ""));
        const CombineReport report = bench.run(method, adapters, options);
        const Dense expected = on_updates(method, adapters, options);
        require_near(update_of(bench.result(), "fc1"), truncated(expected, rank));
        CHECK(report.modules.at(0).error.value() ==
              Approx((expected - truncated(expected, rank)).norm() / expected.norm()).margin(1e-6));
      }
}

TEST_CASE("energy of a dense method keeps its share", "[combine]") {
  CombineBench bench;
  const Adapters adapters{{bench.add("a", 4, 8), 1}, {bench.add("b", 4, 8), 1}};
  CombineOptions options;
  options.density = 0.5;
  options.energy = 0.95;
  bench.run(CombineMethod::ties_svd, adapters, options);
  const LoraModule module = *bench.result().find("fc1");
  const Dense whole = on_updates(CombineMethod::ties_svd, adapters, options);
  CHECK((whole - truncated(whole, module.rank)).squaredNorm() <= 0.05 * whole.squaredNorm());
  CHECK((whole - truncated(whole, module.rank - 1)).squaredNorm() > 0.05 * whole.squaredNorm());
}

TEST_CASE("knots elects signs in the common basis of all updates", "[combine]") {
  CombineBench bench;
  const Adapters adapters{{bench.add("a", 3, 6), 0.9}, {bench.add("b", 2, 5), 0.6}};
  const Dense one = update_of(open_adapter(adapters[0].first), "fc1");
  const Dense two = update_of(open_adapter(adapters[1].first), "fc1");
  Dense both(20, 20);
  both << one, two;
  const Eigen::JacobiSVD<Eigen::MatrixXd> svd(both, Eigen::ComputeThinU | Eigen::ComputeThinV);
  const Eigen::MatrixXd u = svd.matrixU().leftCols(5);
  for (const std::optional<double> density : {std::optional<double>(), std::optional(0.5)}) {
    CombineOptions options;
    options.density = density;
    const CombineReport report = bench.run(CombineMethod::knots, adapters, options);
    CHECK(bench.result().find("fc1")->rank == 5);
    CHECK(report.error == 0.0);
    std::vector<Dense> parts{Dense(u.transpose() * one), Dense(u.transpose() * two)};
    for (Dense& part : parts) part = kept_largest(part, density.value_or(1));
    const Dense merged = u * elected(parts, {0.9, 0.6}, MajoritySign::total, false);
    require_near(update_of(bench.result(), "fc1"), merged);
    options.rank = 2;
    bench.run(CombineMethod::knots, adapters, options);
    require_near(update_of(bench.result(), "fc1"), truncated(merged, 2));
  }
}

TEST_CASE("PEFT 0.20 multiplies the scaling in twice in svd, both keep use_rslora", "[combine]") {
  CombineBench bench;
  const fs::path a = bench.add("a", 4, 8), b = bench.add("b", 4, 2);
  const Dense one = update_of(open_adapter(a), "fc1"), two = update_of(open_adapter(b), "fc1");
  CombineOptions options;
  options.rank = 8;
  options.compat = PeftCompat::v0_20;
  bench.run(CombineMethod::svd, {{a, 0.7}, {b, -0.2}}, options);
  require_near(update_of(bench.result(), "fc1"), 0.7 * 2 * one - 0.2 * 0.5 * two);
  options.compat = PeftCompat::v0_21;
  bench.run(CombineMethod::svd, {{a, 0.7}, {b, -0.2}}, options);
  require_near(update_of(bench.result(), "fc1"), 0.7 * one - 0.2 * two);
  // Every site has the rank of the whole, as PEFT leaves it.
  CHECK(bench.result().config.rank == 8);
  CHECK(bench.result().config.rank_pattern.empty());
  CHECK(bench.result().find("fc2")->rank == 8);

  Adapter root = open_adapter(a);
  root.config.use_rslora = true;
  const fs::path c = bench.add("c", root.config, root.tensors);
  const Dense three = update_of(open_adapter(c), "fc1");
  options.rank.reset();
  const CombineReport report = bench.run(CombineMethod::cat, {{c, 1}, {b, 1}}, options);
  require_near(update_of(bench.result(), "fc1"), std::sqrt(8.0) * (three + two));
  REQUIRE(report.notes.size() == 1);
  // A single adapter is linear, whatever was asked for.
  CHECK(bench.run(CombineMethod::svd, {{b, 2}}, options).method == CombineMethod::linear);
  require_near(update_of(bench.result(), "fc1"), 2 * two);
}
