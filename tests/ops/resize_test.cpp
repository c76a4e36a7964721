#include "lora/ops/resize.h"

#include <Eigen/Dense>
#include <limits>

#include "adapter/kinds.h"
#include "lora/adapter/strength.h"
#include "lora/adapter/update.h"
#include "lora/ops/verify.h"
#include "ops/dense.h"
#include "ops/rank_plan.h"
#include "support/faulty_file_system.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

std::vector<Matrix> updates_of(const LoraModule& module) {
  std::vector<Matrix> updates;
  for (const UpdateFactor& one : update_factors(module))
    updates.push_back(one.scaling * dense(one.b) * dense(one.a));
  return updates;
}

// The error of the best approximation of rank k, from the matrix itself.
double best_error(const Matrix& update, std::int64_t k) {
  const Eigen::JacobiSVD<Matrix> svd(update);
  const auto& values = svd.singularValues();
  return k >= values.size() ? 0 : values.tail(values.size() - k).norm();
}

struct Bench {
  TempDir directory;
  std::filesystem::path output = directory / "output";

  ResizeOptions options(const Adapter& adapter) const {
    ResizeOptions result;
    result.adapter = &adapter;
    result.output.output = output;
    return result;
  }
};

// Rank 12 on three sites of different shapes and strengths.
Adapter wide_adapter(const std::filesystem::path& folder, DType dtype = DType::f32) {
  AdapterConfig config = sample_config();
  config.rank = 12;
  config.alpha = 12;
  config.target_modules = std::vector<std::string>{"q", "k", "v"};
  TensorMap tensors;
  const auto add = [&](const std::string& name, std::int64_t rows, std::int64_t columns,
                       double scale) {
    const std::string stem = "base_model.model.layers.0." + name;
    tensors[stem + ".lora_A.weight"] = normal_tensor(name + "a", {12, columns}, scale).cast(dtype);
    std::vector<float> b = normal_tensor(name + "b", {rows, 12}).to_f32();
    // Directions of falling strength, so that there is something to choose.
    for (std::size_t i = 0; i < b.size(); ++i)
      b[i] *= static_cast<float>(std::pow(0.6, static_cast<double>(i % 12)));
    tensors[stem + ".lora_B.weight"] = Tensor::from_f32({rows, 12}, b).cast(dtype);
  };
  add("q", 60, 50, 1);
  add("k", 30, 50, 0.3);
  add("v", 90, 40, 0.01);
  AtomicDirectory out(folder, WriteOptions{true, nullptr});
  write_adapter(out, config, tensors);
  out.commit();
  return open_adapter(folder);
}

std::int64_t rank_of(const Adapter& adapter, const std::string& name) {
  return adapter.find("layers.0." + name)->rank;
}

}  // namespace

TEST_CASE("every kind of layer is cut to the best approximation, or refused by name",
          "[resize][kinds]") {
  std::size_t cut = 0, refused = 0;
  for (const KindFixture& fixture : kind_fixtures()) {
    INFO(fixture.name);
    const Adapter before = open_adapter(fixture.path);
    if (!before.problems.empty() || before.modules.empty()) continue;
    const Bench bench;
    ResizeOptions options = bench.options(before);
    options.energy = 1e-6;  // one step everywhere
    try {
      resize(options);
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::unsupported);
      ++refused;
      continue;
    }
    ++cut;
    const Adapter after = open_adapter(bench.output);
    CHECK(after.problems.empty());
    REQUIRE(after.modules.size() == before.modules.size());
    for (std::size_t i = 0; i < after.modules.size(); ++i) {
      const LoraModule& from = before.modules[i];
      const LoraModule& to = after.modules[i];
      INFO(from.module_path);
      CHECK(to.rank == from.groups);
      CHECK(static_cast<float>(to.scaling) == static_cast<float>(from.scaling));
      CHECK(to.is_in_out == from.is_in_out);
      CHECK(to.groups == from.groups);
      const auto old_updates = updates_of(from), new_updates = updates_of(to);
      REQUIRE(old_updates.size() == new_updates.size());
      for (std::size_t j = 0; j < old_updates.size(); ++j) {
        const double best = best_error(old_updates[j], 1);
        const double error = (old_updates[j] - new_updates[j]).norm();
        CHECK(error <= best * (1 + 1e-6) + 1e-6 * old_updates[j].norm());
      }
    }
    VerifyOptions verify_options;
    verify_options.adapter = bench.output;
    CHECK_FALSE(verify(verify_options).has_error());
  }
  CHECK(cut > 80);
  CHECK(refused >= 5);
}

TEST_CASE("ranks above the present one keep every bit of the factors", "[resize][kinds]") {
  for (const char* name : {"linear", "bf16_kept", "convolution_grouped", "experts", "embedding",
                           "conv1d", "attention", "tied_together", "qalora"}) {
    INFO(name);
    const Adapter before = open_adapter(golden("kinds/adapters") / name);
    const Bench bench;
    ResizeOptions options = bench.options(before);
    std::int64_t most = 0;
    for (const LoraModule& module : before.modules) most = std::max(most, module.rank);
    options.rank = most + (before.modules[0].groups > 1 ? before.modules[0].groups : 1);
    const ResizeReport report = resize(options);
    CHECK(report.kept == Approx(1));
    const Adapter after = open_adapter(bench.output);
    CHECK(after.problems.empty());
    for (const LoraModule& from : before.modules) {
      const LoraModule& to = *after.find(from.module_path);
      CHECK(to.rank == *options.rank);
      CHECK(to.a.dtype == from.a.dtype);
      CHECK(static_cast<float>(to.scaling) == static_cast<float>(from.scaling));
      const auto old_updates = updates_of(from), new_updates = updates_of(to);
      for (std::size_t j = 0; j < old_updates.size(); ++j)
        CHECK((old_updates[j] - new_updates[j]).norm() <= 1e-15 * old_updates[j].norm());
    }
  }
}

TEST_CASE("a rank and back again is the same update", "[resize]") {
  const Bench bench;
  const Adapter adapter = wide_adapter(bench.directory / "source");
  ResizeOptions options = bench.options(adapter);
  options.rank = 20;
  resize(options);
  const Adapter padded = open_adapter(bench.output);
  options = bench.options(padded);
  options.output.output = bench.directory / "again";
  options.energy = 1;
  resize(options);
  const Adapter again = open_adapter(bench.directory / "again");
  for (const LoraModule& module : adapter.modules) {
    CHECK(again.find(module.module_path)->rank == 12);
    const Matrix before = updates_of(module)[0];
    CHECK((before - updates_of(*again.find(module.module_path))[0]).norm() <= 3e-7 * before.norm());
  }
  CHECK(read_manifest(bench.directory / "again")->history.size() == 2);
}

TEST_CASE("an energy keeps the least rank that holds it", "[resize]") {
  const Bench bench;
  const Adapter adapter = wide_adapter(bench.directory / "source");
  ResizeOptions options = bench.options(adapter);
  options.energy = 0.95;
  const ResizeReport report = resize(options);
  const Adapter after = open_adapter(bench.output);
  for (const ResizedModule& module : report.modules) {
    const Matrix before = updates_of(*adapter.find(module.module_path))[0];
    const double all = before.squaredNorm();
    CHECK(module.norm == Approx(before.norm()));
    CHECK(module.rank_after == after.find(module.module_path)->rank);
    CHECK(std::pow(best_error(before, module.rank_after), 2) <= 0.05 * all);
    CHECK(std::pow(best_error(before, module.rank_after - 1), 2) > 0.05 * all);
    const double lost = (before - updates_of(*after.find(module.module_path))[0]).squaredNorm();
    CHECK(module.kept == Approx(1 - lost / all).epsilon(1e-6));
    CHECK(module.error == Approx(std::sqrt(lost)).epsilon(1e-4));
  }
}

TEST_CASE("a budget is filled by what is worth most a byte, over all modules", "[resize]") {
  const Bench bench;
  const Adapter adapter = wide_adapter(bench.directory / "source");
  ResizeOptions options = bench.options(adapter);
  for (const std::uint64_t budget : {2200, 4000, 7777, 100'000}) {
    options.budget = budget;
    options.output.write.force = true;
    const ResizeReport report = resize(options);
    const auto size = std::filesystem::file_size(bench.output / kAdapterWeightsName);
    CHECK(report.file_bytes == size);
    CHECK(size <= budget);
    const Adapter after = open_adapter(bench.output);
    CHECK(rank_of(after, "q") >= rank_of(after, "v"));
  }
  const Adapter whole = open_adapter(bench.output);
  CHECK(rank_of(whole, "q") == 12);
  options.budget = 1000;
  require_error(ErrorKind::usage, "rank 1 everywhere takes", [&] { resize(options); });
}

TEST_CASE("water-filling is the best choice where steps cost the same", "[resize]") {
  const std::vector<RankGroup> groups{{{9, 4, 1, 0.1}, 10}, {{8, 7, 6, 0}, 10}, {{3, 0, 0, 0}, 10}};
  CHECK(steps_for_budget(groups, 30) == std::vector<std::int64_t>{1, 1, 1});
  CHECK(steps_for_budget(groups, 59) == std::vector<std::int64_t>{1, 3, 1});
  CHECK(steps_for_budget(groups, 60) == std::vector<std::int64_t>{2, 3, 1});
  CHECK(steps_for_budget(groups, 1000) == std::vector<std::int64_t>{4, 3, 1});
  // A cheap step goes in where a dear one no longer fits.
  CHECK(steps_for_budget({{{9, 8}, 100}, {{2, 1}, 10}}, 205) == std::vector<std::int64_t>{1, 2});
  CHECK(steps_for_energy(groups, 0.5) == std::vector<std::int64_t>{1, 2, 1});
  CHECK(steps_for_energy(groups, 1) == std::vector<std::int64_t>{4, 3, 1});
}

TEST_CASE("ranks by pattern, the others by --rank or as they were", "[resize]") {
  const Bench bench;
  const Adapter adapter = wide_adapter(bench.directory / "source");
  ResizeOptions options = bench.options(adapter);
  options.rank_pattern = {{"q", 5}, {"layers.0.[qk]", 3}};
  resize(options);
  Adapter after = open_adapter(bench.output);
  CHECK(rank_of(after, "q") == 5);
  CHECK(rank_of(after, "k") == 3);
  CHECK(rank_of(after, "v") == 12);
  CHECK(after.find("layers.0.v")->a.to_f32() == adapter.find("layers.0.v")->a.to_f32());
  options.rank = 2;
  options.output.write.force = true;
  resize(options);
  after = open_adapter(bench.output);
  CHECK(rank_of(after, "v") == 2);
  options.rank_pattern.emplace_back("o_proj", 3);
  require_error(ErrorKind::usage, "matches no module: o_proj", [&] { resize(options); });
}

TEST_CASE("what has no meaning is refused before anything is computed", "[resize]") {
  const Bench bench;
  const Adapter adapter = wide_adapter(bench.directory / "source");
  const auto refused = [&](const char* part, auto&& change) {
    ResizeOptions options = bench.options(adapter);
    change(options);
    require_error(ErrorKind::usage, part, [&] { resize(options); });
    CHECK(entry_count(bench.directory.path()) == 1);
  };
  refused("got no goal", [](ResizeOptions&) {});
  refused("several goals", [](ResizeOptions& options) {
    options.rank = 2;
    options.energy = 0.5;
  });
  for (const double energy : {0.0, -0.5, 1.5, std::numeric_limits<double>::quiet_NaN()})
    refused("expected a share above 0 and up to 1",
            [&](ResizeOptions& options) { options.energy = energy; });
  refused("expected at least 1", [](ResizeOptions& options) { options.rank = 0; });
  refused("rank 51 of layers.0.k is above the full rank of every module, 50",
          [](ResizeOptions& options) { options.rank = 51; });
  refused("it is or holds the adapter", [&](ResizeOptions& options) {
    options.rank = 2;
    options.output.output = adapter.path;
    options.output.write.force = true;
  });
}

TEST_CASE("zero updates, a zero scaling and values that are not finite", "[resize]") {
  const Bench bench;
  TensorMap tensors = sample_tensors();
  tensors["base_model.model.fc1.lora_B.weight"] =
      Tensor::from_f32({20, 4}, std::vector<float>(80, 0.F));
  const Adapter zero = make_adapter(sample_config(), tensors, bench.directory / "source");
  ResizeOptions options = bench.options(zero);
  options.energy = 1;
  ResizeReport report = resize(options);
  CHECK(report.modules[0].rank_after == 1);
  CHECK(report.modules[0].kept == 1);
  CHECK(report.modules[1].rank_after == 2);  // fc2 has two outputs
  CHECK(open_adapter(bench.output).problems.empty());

  AdapterConfig silent = sample_config();
  silent.alpha = 0;
  const Adapter off = make_adapter(silent, sample_tensors(), bench.directory / "source");
  options = bench.options(off);
  options.rank = 2;
  options.output.write.force = true;
  resize(options);
  CHECK(open_adapter(bench.output).find("fc1")->scaling == 0);

  std::vector<float> values = tensors.at("base_model.model.fc1.lora_A.weight").to_f32();
  values[0] = std::numeric_limits<float>::infinity();
  tensors["base_model.model.fc1.lora_A.weight"] = Tensor::from_f32({4, 10}, values);
  const Adapter broken = make_adapter(sample_config(), tensors, bench.directory / "source");
  options = bench.options(broken);
  options.rank = 2;
  options.output.write.force = true;
  require_error(ErrorKind::malformed, "fc1.lora_A.weight holds NaN or infinity",
                [&] { resize(options); });
}

TEST_CASE("mixed and narrow dtypes: new factors are F32, or what --dtype says", "[resize]") {
  const Bench bench;
  const Adapter narrow = wide_adapter(bench.directory / "source", DType::bf16);
  ResizeOptions options = bench.options(narrow);
  options.rank_pattern = {{"q", 4}};
  resize(options);
  Adapter after = open_adapter(bench.output);
  CHECK(after.find("layers.0.q")->a.dtype == DType::f32);
  CHECK(after.find("layers.0.k")->a.dtype == DType::bf16);
  const Matrix before = updates_of(*narrow.find("layers.0.q"))[0];
  CHECK((before - updates_of(*after.find("layers.0.q"))[0]).norm() <=
        best_error(before, 4) * (1 + 1e-6));
  options.output.dtype = DType::f16;
  options.output.write.force = true;
  resize(options);
  after = open_adapter(bench.output);
  for (const auto& [key, tensor] : after.tensors) CHECK(tensor.dtype == DType::f16);
}

TEST_CASE("resize is the same on any number of threads, and leaves nothing on a full disk",
          "[resize]") {
  const Bench bench;
  const Adapter adapter = wide_adapter(bench.directory / "source");
  ResizeOptions options = bench.options(adapter);
  options.budget = 9000;
  options.output.threads = 1;
  const Digest one = resize(options).result.digest;
  options.output.threads = 7;
  options.output.output = bench.directory / "other";
  CHECK(resize(options).result.digest == one);
  FaultyFileSystem full;
  full.bytes_until_full = 5000;
  options.output.output = bench.directory / "third";
  options.output.write.file_system = &full;
  require_error(ErrorKind::output, "injected", [&] { resize(options); });
  CHECK(entry_count(bench.directory.path()) == 3);
}
