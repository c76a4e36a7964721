// combine: the methods that are exact, against the sum of the updates in f64.
#include <cmath>

#include "ops/combine_bench.h"

using namespace lora;
using namespace lora::testing;

namespace {

// Rounding of factors to f32: 2^-24 each, over a few terms.
void require_near(const Dense& found, const Dense& expected, double scale = 1e-6) {
  REQUIRE(found.rows() == expected.rows());
  REQUIRE(found.cols() == expected.cols());
  INFO("distance " << (found - expected).norm() << " of " << expected.norm());
  REQUIRE((found - expected).norm() <= scale * std::max(1.0, expected.norm()));
}

Dense truncated(const Dense& matrix, Eigen::Index rank) {
  const Eigen::JacobiSVD<Eigen::MatrixXd> svd(matrix, Eigen::ComputeThinU | Eigen::ComputeThinV);
  const Eigen::Index k = std::min(rank, svd.singularValues().size());
  return svd.matrixU().leftCols(k) * svd.singularValues().head(k).asDiagonal() *
         svd.matrixV().leftCols(k).transpose();
}

struct Unequal : CombineBench {
  fs::path a = add("a", 4, 8), b = add("b", 3, 5, {"fc1", "fc2"}, 2), c = add("c", 1, 4, {"fc1"});
  std::vector<std::pair<fs::path, double>> all{{a, 0.7}, {b, -0.3}, {c, 2}};

  Dense sum(const std::string& path) const {
    Dense total;
    for (const auto& [from, weight] : all) {
      const Adapter adapter = open_adapter(from);
      if (adapter.find(path) == nullptr) continue;
      const Dense one = weight * update_of(adapter, path);
      total = total.size() == 0 ? one : Dense(total + one);
    }
    return total;
  }
};

}  // namespace

TEST_CASE("cat is the weighted sum for any ranks, scalings and patterns", "[combine]") {
  Unequal bench;
  const CombineReport report = bench.run(CombineMethod::cat, bench.all);
  CHECK(report.is_written);
  CHECK(report.error == 0.0);
  const Adapter result = bench.result();
  CHECK(result.find("fc1")->rank == 8);
  CHECK(result.find("fc2")->rank == 6);
  CHECK(result.find("fc1")->scaling == 1);
  for (const char* path : {"fc1", "fc2"}) require_near(update_of(result, path), bench.sum(path));
  CHECK(complaints_about(bench.output).empty());
  CHECK(report.modules.at(1).ranks == std::vector<std::int64_t>{4, 2, 0});
}

TEST_CASE("cat of powers of two is the sum bit for bit", "[combine]") {
  CombineBench bench;
  const fs::path a = bench.add("a", 4, 8), b = bench.add("b", 2, 4);
  bench.run(CombineMethod::cat, {{a, 0.5}, {b, -2}});
  const LoraModule joined = *bench.result().find("fc1");
  const LoraModule one = *open_adapter(a).find("fc1"), two = *open_adapter(b).find("fc1");
  Dense rows(6, 10), columns(20, 6);
  rows << dense(one.a), -4 * dense(two.a);
  columns << dense(one.b), dense(two.b);
  CHECK(dense(joined.a) == rows);
  CHECK(dense(joined.b) == columns);
}

TEST_CASE("svd is the best approximation of the weighted sum at every rank", "[combine]") {
  Unequal bench;
  for (const std::int64_t rank : {1, 2, 5, 8, 40}) {
    CombineOptions options;
    options.rank = rank;
    const CombineReport report = bench.run(CombineMethod::svd, bench.all, options);
    const Adapter result = bench.result();
    double squares = 0, missing = 0;
    for (const char* path : {"fc1", "fc2"}) {
      const Dense sum = bench.sum(path);
      require_near(update_of(result, path), truncated(sum, rank));
      squares += sum.squaredNorm();
      missing += (sum - truncated(sum, rank)).squaredNorm();
    }
    CHECK(report.error.value() == Approx(std::sqrt(missing / squares)).margin(1e-7));
    CHECK(result.find("fc2")->rank == std::min<std::int64_t>(rank, 2));
    CHECK(complaints_about(bench.output).empty());
  }
  // Without a rank: the largest that went in, site by site.
  bench.run(CombineMethod::svd, bench.all);
  CHECK(bench.result().find("fc1")->rank == 4);
}

TEST_CASE("energy keeps the least rank with that share", "[combine]") {
  Unequal bench;
  for (const double share : {0.5, 0.9, 0.999, 1.0}) {
    CombineOptions options;
    options.energy = share;
    const CombineReport report = bench.run(CombineMethod::svd, bench.all, options);
    const LoraModule module = *bench.result().find("fc1");
    const Dense sum = bench.sum("fc1");
    const auto missing = [&](Eigen::Index rank) {
      return (sum - truncated(sum, rank)).squaredNorm() / sum.squaredNorm();
    };
    CHECK(missing(module.rank) <= 1 - share + 1e-12);
    CHECK((module.rank == 1 || missing(module.rank - 1) > 1 - share - 1e-12));
    CHECK(report.modules.at(0).error.value() ==
          Approx(std::sqrt(missing(module.rank))).margin(1e-7));
  }
}

TEST_CASE("linear adds factors, and says how far that is from the sum", "[combine]") {
  CombineBench bench;
  const fs::path a = bench.add("a", 4, 8), b = bench.add("b", 4, 2);
  const CombineReport report = bench.run(CombineMethod::linear, {{a, 0.7}, {b, -0.3}});
  const LoraModule one = *open_adapter(a).find("fc1"), two = *open_adapter(b).find("fc1");
  const double u = 0.7 * 2, v = 0.3 * 0.5;
  const Dense rows = std::sqrt(u) * dense(one.a) - std::sqrt(v) * dense(two.a);
  const Dense columns = std::sqrt(u) * dense(one.b) + std::sqrt(v) * dense(two.b);
  const Dense found = update_of(bench.result(), "fc1");
  require_near(found, columns * rows);
  const Dense sum = 0.7 * update_of(one) - 0.3 * update_of(two);
  CHECK(report.modules.at(0).error.value() ==
        Approx((columns * rows - sum).norm() / sum.norm()).epsilon(1e-6));
  // One adapter has nothing to mix with.
  const CombineReport single = bench.run(CombineMethod::linear, {{a, -1.5}});
  CHECK(single.error == 0.0);
  require_near(update_of(bench.result(), "fc1"), -1.5 * update_of(one));
}

TEST_CASE("slerp follows the arc between two updates", "[combine]") {
  CombineBench bench;
  const fs::path a = bench.add("a", 4, 8), b = bench.add("b", 2, 2);
  const Dense one = update_of(open_adapter(a), "fc1"), two = update_of(open_adapter(b), "fc1");
  const double angle = std::acos(one.cwiseProduct(two).sum() / one.norm() / two.norm());
  for (const double t : {0.0, 0.25, 1.0}) {
    const CombineReport report = bench.run(CombineMethod::slerp, {{a, 2 * (1 - t)}, {b, 2 * t}});
    const Dense expected =
        (std::sin((1 - t) * angle) * one + std::sin(t * angle) * two) / std::sin(angle);
    require_near(update_of(bench.result(), "fc1"), expected);
    CHECK(report.error == 0.0);
    CHECK(bench.result().find("fc1")->rank == 6);
  }
  CombineOptions options;
  options.rank = 2;
  bench.run(CombineMethod::slerp, {{a, 0.5}, {b, 0.5}}, options);
  const Dense middle = (one + two) * std::sin(angle / 2) / std::sin(angle);
  require_near(update_of(bench.result(), "fc1"), truncated(middle, 2));
  // Opposite updates lie on no one arc: the straight line between them.
  bench.run(CombineMethod::cat, {{a, -1}});
  const fs::path opposite = bench.directory / "opposite";
  fs::rename(bench.output, opposite);
  bench.run(CombineMethod::slerp, {{a, 0.75}, {opposite, 0.25}});
  require_near(update_of(bench.result(), "fc1"), 0.5 * one);
}

TEST_CASE("the interference matrix holds the cosines of the updates", "[combine]") {
  Unequal bench;
  const CombineReport report = bench.run(CombineMethod::cat, bench.all);
  const auto cosine = [&](const fs::path& x, const fs::path& y,
                          const std::vector<std::string>& paths) {
    double inner = 0, first = 0, second = 0;
    for (const std::string& path : paths) {
      const Adapter p = open_adapter(x), q = open_adapter(y);
      if (p.find(path)) first += update_of(p, path).squaredNorm();
      if (q.find(path)) second += update_of(q, path).squaredNorm();
      if (p.find(path) && q.find(path))
        inner += update_of(p, path).cwiseProduct(update_of(q, path)).sum();
    }
    return inner / std::sqrt(first * second);
  };
  REQUIRE(report.pairs.size() == 3);
  CHECK(report.pairs[0].cosine.value() == Approx(cosine(bench.a, bench.b, {"fc1", "fc2"})));
  CHECK(report.pairs[1].cosine.value() == Approx(cosine(bench.a, bench.c, {"fc1", "fc2"})));
  CHECK(report.modules.at(0).pairs.at(2).cosine.value() ==
        Approx(cosine(bench.b, bench.c, {"fc1"})));
  CHECK_FALSE(report.modules.at(1).pairs.at(1).cosine.has_value());
}

TEST_CASE("a combination does not depend on threads, and its history verifies", "[combine]") {
  Unequal bench;
  std::string first;
  for (const int threads : {1, 3}) {
    CombineOptions options;
    options.threads = threads;
    bench.run(CombineMethod::svd, bench.all, options);
    std::string files;
    for (const char* name :
         {"adapter_config.json", "adapter_model.safetensors", "lora_manifest.json"})
      files += read_file(bench.output / name);
    if (first.empty()) first = files;
    CHECK(files == first);
  }
  const Manifest manifest = read_manifest(bench.output).value();
  const Json& entry = manifest.history.back();
  CHECK(*entry.find("operation")->as_string() == "combine");
  REQUIRE(entry.find("inputs")->as_array()->size() == 3);
  CHECK(entry.find("inputs")->as_array()->at(1).find("weight")->as_double() == -0.3);
  // The combination of a combination holds the whole tree.
  const fs::path inner = bench.directory / "inner";
  fs::rename(bench.output, inner);
  bench.run(CombineMethod::cat, {{inner, 1}, {bench.a, 1}});
  const Manifest outer = read_manifest(bench.output).value();
  CHECK(outer.history.back().find("inputs")->as_array()->at(0).find("history") != nullptr);
  CHECK(complaints_about(bench.output).empty());
}

TEST_CASE("an adapter of weight 0 takes no part", "[combine]") {
  Unequal bench;
  const CombineReport report =
      bench.run(CombineMethod::cat, {{bench.a, 1}, {bench.b, 0}, {bench.c, 1}});
  CHECK(bench.result().find("fc1")->rank == 5);
  CHECK(bench.result().find("fc2")->rank == 4);
  REQUIRE(report.notes.size() == 1);
  CHECK(report.notes[0].find("weight 0") != std::string::npos);
  CHECK(report.pairs.size() == 1);
  CHECK(report.pairs[0].second == 2);
}

TEST_CASE("mixed dtypes are computed alike and written as asked", "[combine]") {
  Unequal bench;
  Adapter half = open_adapter(bench.b);
  for (auto& [key, tensor] : half.tensors) tensor = tensor.cast(DType::bf16);
  bench.b = bench.add("half", half.config, half.tensors);
  bench.all[1].first = bench.b;
  bench.run(CombineMethod::cat, bench.all);
  CHECK(bench.result().find("fc1")->a.dtype == DType::f32);
  require_near(update_of(bench.result(), "fc1"), bench.sum("fc1"));
  CombineOptions options;
  options.dtype = DType::bf16;
  bench.run(CombineMethod::svd, bench.all, options);
  CHECK(bench.result().find("fc1")->a.dtype == DType::bf16);
  require_near(update_of(bench.result(), "fc1"), truncated(bench.sum("fc1"), 4), 0.02);
}

TEST_CASE("rsLoRA adapters are added with the strength they have", "[combine]") {
  CombineBench bench;
  const fs::path a = bench.add("a", 4, 8);
  Adapter other = open_adapter(bench.add("b", 4, 2));
  other.config.use_rslora = true;
  const fs::path b = bench.add("b", other.config, other.tensors);
  for (const bool is_first : {true, false}) {
    bench.run(CombineMethod::cat, is_first
                                      ? std::vector<std::pair<fs::path, double>>{{b, 1}, {a, 1}}
                                      : std::vector<std::pair<fs::path, double>>{{a, 1}, {b, 1}});
    require_near(update_of(bench.result(), "fc1"),
                 update_of(open_adapter(a), "fc1") + update_of(open_adapter(b), "fc1"));
    CHECK_FALSE(bench.result().config.use_rslora);
  }
}
