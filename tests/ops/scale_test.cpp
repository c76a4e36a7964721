#include "lora/ops/scale.h"

#include <limits>

#include "adapter/kinds.h"
#include "lora/adapter/manifest.h"
#include "lora/adapter/update.h"
#include "lora/ops/verify.h"
#include "support/faulty_file_system.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

struct Bench {
  TempDir directory;
  std::filesystem::path output = directory / "output";

  ScaleOptions options(const Adapter& adapter) const {
    ScaleOptions result;
    result.adapter = &adapter;
    result.output.output = output;
    return result;
  }
};

// Sum of the squares and the largest difference of two updates, product by product.
double difference(const LoraModule& x, const LoraModule& y, double factor) {
  const auto one = update_factors(x), two = update_factors(y);
  REQUIRE(one.size() == two.size());
  double worst = 0, largest = 0;
  for (std::size_t i = 0; i < one.size(); ++i) {
    const auto a1 = one[i].a.to_f64(), b1 = one[i].b.to_f64(), a2 = two[i].a.to_f64(),
               b2 = two[i].b.to_f64();
    const auto rank = static_cast<std::size_t>(one[i].a.shape[0]);
    const std::size_t columns = a1.size() / rank, rows = b1.size() / rank;
    for (std::size_t row = 0; row < rows; ++row)
      for (std::size_t column = 0; column < columns; ++column) {
        double before = 0, after = 0;
        for (std::size_t k = 0; k < rank; ++k) {
          before += b1[row * rank + k] * a1[k * columns + column];
          after += b2[row * rank + k] * a2[k * columns + column];
        }
        largest = std::max(largest, std::fabs(factor * one[i].scaling * before));
        worst =
            std::max(worst, std::fabs(factor * one[i].scaling * before - two[i].scaling * after));
      }
  }
  return largest == 0 ? worst : worst / largest;
}

}  // namespace

TEST_CASE("every kind: a factor multiplies the update, folding leaves it", "[scale][kinds]") {
  std::size_t done = 0, refused = 0;
  for (const KindFixture& fixture : kind_fixtures()) {
    INFO(fixture.name);
    const Adapter before = open_adapter(fixture.path);
    if (!before.problems.empty() || before.modules.empty()) continue;
    const Bench bench;
    ScaleOptions options = bench.options(before);
    if (!base_changing_init(before.config).empty()) {
      options.fold = true;
      require_error(ErrorKind::unsupported, "takes the first factors off the base",
                    [&] { scale(options); });
      ++refused;
      continue;
    }
    ++done;
    const auto check = [&](double factor, double bound) {
      options.output.write.force = true;
      const ScaleReport report = scale(options);
      const Adapter after = open_adapter(bench.output);
      CHECK(after.problems.empty());
      for (const LoraModule& module : before.modules) {
        const LoraModule& now = *after.find(module.module_path);
        CHECK(difference(module, now, factor) <= bound);
        if (module.bias && factor == 1)
          CHECK(now.scaling * now.bias->to_f64()[0] ==
                Approx(module.scaling * module.bias->to_f64()[0]).epsilon(1e-3));
      }
      VerifyOptions verify_options;
      verify_options.adapter = bench.output;
      CHECK_FALSE(verify(verify_options).has_error());
      return report;
    };
    // bf16 fixtures round B to 8 bits.
    const bool is_narrow = before.modules[0].b.dtype != DType::f32;
    options.times = 0.5;
    check(0.5, 1e-12);
    options.times.reset();
    options.fold = true;
    check(1, is_narrow ? 1e-2 : 1e-6);
    const Adapter folded = open_adapter(bench.output);
    for (const LoraModule& module : folded.modules)
      CHECK(module.scaling == Approx(1).epsilon(1e-15));
    options.fold = false;
    options.unfold = 4;
    check(1, is_narrow ? 1e-2 : 1e-6);
  }
  CHECK(done > 90);
  CHECK(refused >= 2);
}

TEST_CASE("setting and multiplying leave tensors and patterns, and write few numbers", "[scale]") {
  const Bench bench;
  AdapterConfig config = sample_config();
  config.alpha_pattern = {{"fc2", 3}};
  const Adapter adapter = make_adapter(config, sample_tensors(), bench.directory / "source");
  ScaleOptions options = bench.options(adapter);
  options.times = 0.1;
  scale(options);
  Adapter after = open_adapter(bench.output);
  CHECK(after.config.alpha == 8 * 0.1);
  CHECK(after.config.alpha_pattern == NumberPattern{{"fc2", 3 * 0.1}});
  for (const auto& [key, tensor] : adapter.tensors)
    CHECK(after.tensors.at(key).to_f32() == tensor.to_f32());
  options.times.reset();
  options.set = 0.25;
  options.output.write.force = true;
  const ScaleReport report = scale(options);
  after = open_adapter(bench.output);
  CHECK(after.config.alpha == 1);
  CHECK(after.config.alpha_pattern.empty());
  CHECK(report.modules[1].alpha_before == 3);
  CHECK(report.modules[1].scaling_after == 0.25);
}

TEST_CASE("folding a power of two is exact, and unfolding gives the bytes back", "[scale]") {
  const Bench bench;
  const Adapter adapter =
      make_adapter(sample_config(), sample_tensors(), bench.directory / "source");
  ScaleOptions options = bench.options(adapter);
  options.fold = true;
  CHECK(scale(options).rounding == 0);
  const Adapter folded = open_adapter(bench.output);
  CHECK(folded.config.alpha == 4);
  options = bench.options(folded);
  options.unfold = 2;
  options.output.output = bench.directory / "again";
  scale(options);
  const Adapter again = open_adapter(bench.directory / "again");
  CHECK(dump_adapter_config(again.config) == dump_adapter_config(adapter.config));
  for (const auto& [key, tensor] : adapter.tensors)
    CHECK(again.tensors.at(key).to_f32() == tensor.to_f32());
  CHECK(read_manifest(bench.directory / "again")->history.size() == 2);
}

TEST_CASE("scale refuses what has no meaning, and values without room", "[scale]") {
  const Bench bench;
  TensorMap tensors = sample_tensors();
  for (auto& [key, tensor] : tensors) tensor = tensor.cast(DType::f16);
  const Adapter adapter = make_adapter(sample_config(), tensors, bench.directory / "source");
  const auto refused = [&](ErrorKind kind, const char* part, auto&& change) {
    ScaleOptions options = bench.options(adapter);
    change(options);
    require_error(kind, part, [&] { scale(options); });
    CHECK(entry_count(bench.directory.path()) == 0);
  };
  refused(ErrorKind::usage, "got nothing to do", [](ScaleOptions&) {});
  refused(ErrorKind::usage, "several requests", [](ScaleOptions& options) {
    options.fold = true;
    options.set = 1;
  });
  refused(ErrorKind::usage, "expected a finite number",
          [](ScaleOptions& options) { options.times = std::numeric_limits<double>::infinity(); });
  refused(ErrorKind::usage, "by which nothing can be divided",
          [](ScaleOptions& options) { options.unfold = 0; });
  refused(ErrorKind::incompatible, "leave the range of their dtype in fc1, fc2",
          [](ScaleOptions& options) { options.unfold = 1e-9; });
  ScaleOptions widest = bench.options(adapter);
  widest.unfold = 1e-45;
  widest.output.dtype = DType::f32;
  try {
    scale(widest);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.hint().find("--dtype") == std::string::npos);
  }
  refused(ErrorKind::output, "injected", [](ScaleOptions& options) {
    static FaultyFileSystem full;
    full.bytes_until_full = 400;
    options.fold = true;
    options.output.write.file_system = &full;
  });
  ScaleOptions options = bench.options(adapter);
  options.unfold = 1e-9;
  options.output.dtype = DType::f32;
  CHECK(scale(options).result.is_written);
}
