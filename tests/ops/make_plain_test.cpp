#include "lora/ops/make_plain.h"

#include <Eigen/Dense>

#include "adapter/kinds.h"
#include "lora/adapter/manifest.h"
#include "lora/adapter/update.h"
#include "lora/format/safetensors.h"
#include "lora/ops/verify.h"
#include "ops/dense.h"
#include "ops/first_factors.h"
#include "support/faulty_file_system.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

Matrix update_of(const LoraModule& module) {
  return module.scaling * dense(module.b) * dense(module.a);
}

struct Bench {
  TempDir directory;
  std::filesystem::path output = directory / "output";

  MakePlainOptions options(const Adapter& adapter) const {
    MakePlainOptions result;
    result.adapter = &adapter;
    result.output.output = output;
    return result;
  }

  Adapter trained(const std::string& init = "pissa", std::uint64_t seed = 1) const {
    AdapterConfig config = sample_config();
    config.rank = 2;
    config.alpha = 4;
    config.init_lora_weights = init;
    TensorMap tensors;
    for (const auto& [key, tensor] : sample_tensors(seed)) {
      std::vector<std::int64_t> shape = tensor.shape;
      shape[key.find("lora_A") != std::string::npos ? 0 : 1] = 2;
      tensors[key] = normal_tensor(key, shape, 0.1, seed);
    }
    return make_adapter(config, tensors, directory / "source");
  }
};

}  // namespace

TEST_CASE("with the initial adapter the plain one adds what was learned", "[plain]") {
  const Bench bench;
  const Adapter adapter = bench.trained(), initial = bench.trained("pissa", 2);
  MakePlainOptions options = bench.options(adapter);
  options.initial = &initial;
  const MakePlainReport report = make_plain(options);
  const Adapter after = open_adapter(bench.output);
  CHECK(after.config.rank == 4);
  CHECK(after.config.alpha == 8);
  CHECK(after.config.init_lora_weights == Json(true));
  CHECK(report.modules[0].rank_after == 4);
  for (const LoraModule& module : adapter.modules) {
    const Matrix wanted = update_of(module) - update_of(*initial.find(module.module_path));
    CHECK((update_of(*after.find(module.module_path)) - wanted).norm() <= 1e-14 * wanted.norm());
  }
  const JsonArray history = read_manifest(bench.output)->history;
  REQUIRE(history.size() == 1);
  CHECK(history[0].find("inputs")->as_array()->at(1).find("initial") != nullptr);
  VerifyOptions verify_options;
  verify_options.adapter = bench.output;
  CHECK_FALSE(verify(verify_options).has_error());
}

TEST_CASE("rsLoRA with patterns is converted too", "[plain]") {
  const Bench bench;
  AdapterConfig config = bench.trained().config;
  config.use_rslora = true;
  config.alpha_pattern = {{"fc2", 3}};
  const Adapter adapter = make_adapter(config, bench.trained().tensors, bench.directory / "s");
  const Adapter initial =
      make_adapter(config, bench.trained("pissa", 2).tensors, bench.directory / "i");
  MakePlainOptions options = bench.options(adapter);
  options.initial = &initial;
  make_plain(options);
  const Adapter after = open_adapter(bench.output);
  for (const LoraModule& module : adapter.modules)
    CHECK(static_cast<float>(after.find(module.module_path)->scaling) ==
          static_cast<float>(module.scaling));
  CHECK(after.config.alpha_pattern.size() == 1);
}

TEST_CASE("what PEFT wrote as pissa and olora, from the base: base + plain is the model",
          "[plain]") {
  for (const char* name : {"pissa", "olora"}) {
    INFO(name);
    for (const KindFixture& fixture : kind_fixtures()) {
      if (fixture.name != name) continue;
      const Bench bench;
      const Adapter adapter = open_adapter(fixture.path);
      const Checkpoint base = open_checkpoint(fixture.base.string());
      MakePlainOptions options = bench.options(adapter);
      options.base = &base;
      make_plain(options);
      const Adapter after = open_adapter(bench.output);
      // PEFT's record holds s B A; what it took out of the base is worked out anew.
      const TensorMap deltas = read_safetensors(fixture.deltas).tensors;
      for (const LoraModule& module : after.modules) {
        const Matrix w = dense(base.tensors.at(module.base_name));
        const Eigen::Index rank = module.rank / 2;
        const Eigen::JacobiSVD<Matrix> svd(w, Eigen::ComputeThinU | Eigen::ComputeThinV);
        const Eigen::HouseholderQR<Matrix> qr(w);
        const Matrix q = qr.householderQ() * Matrix::Identity(w.rows(), rank);
        const Matrix first = std::string(name) == "pissa"
                                 ? Matrix(svd.matrixU().leftCols(rank) *
                                          svd.singularValues().head(rank).asDiagonal() *
                                          svd.matrixV().leftCols(rank).transpose())
                                 : Matrix(module.scaling * q * q.transpose() * w);
        const Matrix wanted = dense(deltas.at(module.base_name)) - first;
        CHECK((update_of(module) - wanted).norm() <= 1e-5 * first.norm());
      }
    }
  }
}

TEST_CASE("first factors are the best approximation, and the first columns of QR", "[plain]") {
  LoraModule module;
  module.module_path = "fc";
  module.rank = 3;
  module.scaling = 0.5;
  for (const auto& shape : {std::vector<std::int64_t>{20, 11}, std::vector<std::int64_t>{9, 30}}) {
    const Tensor weight = normal_tensor("w", shape);
    const Matrix w = dense(weight);
    for (const bool is_conv1d : {false, true}) {
      const FactorPair pair = first_factors("pissa", module, weight, is_conv1d);
      const Eigen::JacobiSVD<Matrix> svd(w, Eigen::ComputeThinU | Eigen::ComputeThinV);
      const Matrix best = svd.matrixU().leftCols(3) * svd.singularValues().head(3).asDiagonal() *
                          svd.matrixV().leftCols(3).transpose();
      const Matrix part = 0.5 * dense(pair.b) * dense(pair.a);
      CHECK(((is_conv1d ? Matrix(part.transpose()) : part) - best).norm() <= 1e-6 * best.norm());
    }
    const FactorPair pair = first_factors("OLoRA", module, weight, false);
    const Eigen::HouseholderQR<Matrix> qr(w);
    const Eigen::Index k = std::min(w.rows(), w.cols());
    const Matrix q = qr.householderQ() * Matrix::Identity(w.rows(), k);
    const Matrix first = q.leftCols(3) * q.leftCols(3).transpose() * w;
    CHECK((dense(pair.b) * dense(pair.a) - first).norm() <= 1e-6 * first.norm());
  }
  const Tensor small = normal_tensor("w", {2, 9});
  require_error(ErrorKind::incompatible, "expected at most 2",
                [&] { first_factors("pissa", module, small, false); });
  require_error(ErrorKind::unsupported, "it is a Conv1D", [&] {
    first_factors("olora", module, normal_tensor("w", {9, 9}), true);
  });
  module.scaling = 0;
  require_error(ErrorKind::incompatible, "expected more than 0", [&] {
    first_factors("pissa", module, normal_tensor("w", {9, 9}), false);
  });
}

TEST_CASE("convert refuses what has no conversion, all of it by name", "[plain]") {
  const Bench bench;
  const Adapter initial = bench.trained("pissa", 2);
  const Checkpoint base = sample_base(bench.directory / "base");
  const auto refused = [&](ErrorKind kind, const char* part, const Adapter& adapter,
                           auto&& change) {
    MakePlainOptions options = bench.options(adapter);
    change(options);
    require_error(kind, part, [&] { make_plain(options); });
    CHECK(!std::filesystem::exists(bench.output));
  };
  const auto with_initial = [&](MakePlainOptions& options) { options.initial = &initial; };
  const auto with_base = [&](MakePlainOptions& options) { options.base = &base; };
  refused(ErrorKind::usage, "one of them", bench.trained(), [](MakePlainOptions&) {});
  refused(ErrorKind::usage, "one of them", bench.trained(), [&](MakePlainOptions& options) {
    options.initial = &initial;
    options.base = &base;
  });
  Adapter plain = bench.trained();
  plain.config.init_lora_weights = true;
  refused(ErrorKind::unsupported, "it is a plain LoRA already", plain, with_initial);
  refused(ErrorKind::unsupported, "loftq belongs to a quantised base", bench.trained("loftq"),
          with_initial);
  const Adapter otherwise = bench.trained("olora", 2);
  refused(ErrorKind::incompatible, "it began as pissa, the initial adapter", bench.trained(),
          [&](MakePlainOptions& options) { options.initial = &otherwise; });
  refused(ErrorKind::unsupported, "more than its weights", bench.trained("corda"), with_base);
  refused(ErrorKind::unsupported, "random columns", bench.trained("pissa_niter_4"), with_base);

  TensorMap fewer = initial.tensors;
  fewer.erase("base_model.model.fc2.lora_A.weight");
  fewer.erase("base_model.model.fc2.lora_B.weight");
  AdapterConfig stronger = initial.config;
  stronger.alpha = 6;
  const Adapter other = make_adapter(stronger, fewer, bench.directory / "i");
  for (const char* part : {"fc1 has scaling 3 in it, expected 2", "fc2 is not in it"})
    refused(ErrorKind::incompatible, part, bench.trained(),
            [&](MakePlainOptions& options) { options.initial = &other; });
  const Adapter wider = make_adapter(sample_config(), sample_tensors(), bench.directory / "i");
  refused(ErrorKind::incompatible, "fc1 has factors [4, 10]", bench.trained(),
          [&](MakePlainOptions& options) { options.initial = &wider; });
  refused(ErrorKind::usage, "it is or holds the initial adapter", bench.trained(),
          [&](MakePlainOptions& options) {
            options.initial = &wider;
            options.output.output = wider.path;
          });
  FaultyFileSystem full;
  full.bytes_until_full = 300;
  refused(ErrorKind::output, "injected", bench.trained(), [&](MakePlainOptions& options) {
    options.initial = &initial;
    options.output.write.file_system = &full;
  });
}

TEST_CASE("a bare base tells a transposed weight by its shape, a square one by fan_in_fan_out",
          "[plain]") {
  for (const std::int64_t columns : {12, 9}) {
    const Bench bench;
    const std::string stem = "base_model.model.fc.";
    AdapterConfig config = sample_config();
    config.rank = 2;
    config.init_lora_weights = "pissa";
    config.fan_in_fan_out = true;
    config.target_modules = std::vector<std::string>{"fc"};
    const Adapter adapter =
        make_adapter(config,
                     {{stem + "lora_A.weight", normal_tensor("a", {2, columns})},
                      {stem + "lora_B.weight", normal_tensor("b", {9, 2})}},
                     bench.directory / "source");
    const Tensor weight = normal_tensor("w", {columns, 9});
    // The second tensor keeps it from being taken for an mlp, whose layers are known.
    write_safetensors(bench.directory / "base.safetensors",
                      {{"fc.weight", weight}, {"conv.weight", normal_tensor("c", {2, 2, 2})}},
                      nullptr, WriteOptions{});
    const Checkpoint base = open_checkpoint((bench.directory / "base.safetensors").string());
    MakePlainOptions options = bench.options(adapter);
    options.base = &base;
    make_plain(options);
    const Eigen::JacobiSVD<Matrix> svd(dense(weight), Eigen::ComputeThinU | Eigen::ComputeThinV);
    const Matrix first = svd.matrixU().leftCols(2) * svd.singularValues().head(2).asDiagonal() *
                         svd.matrixV().leftCols(2).transpose();
    const Matrix wanted = update_of(adapter.modules[0]) - first.transpose();
    CHECK((update_of(open_adapter(bench.output).modules[0]) - wanted).norm() <=
          1e-5 * wanted.norm());
  }
}

TEST_CASE("an adapter that equals its beginning converts to zero, and says so", "[plain]") {
  const Bench bench;
  const Adapter adapter = bench.trained();
  MakePlainOptions options = bench.options(adapter);
  options.initial = &adapter;
  options.output.dry_run = true;
  const MakePlainReport report = make_plain(options);
  REQUIRE(!report.result.notes.empty());
  CHECK(report.result.notes[0].find("the converted update is zero") != std::string::npos);
}

TEST_CASE("first factors that the adapter has nothing of are of another beginning", "[plain]") {
  const Bench bench;
  const Adapter initial = bench.trained("pissa", 2), other = bench.trained("pissa", 3);
  const Adapter change = bench.trained("pissa", 4);
  TensorMap tensors;
  for (const auto& [key, tensor] : initial.tensors) {
    std::vector<float> values = tensor.to_f32();
    const std::vector<float> learned = change.tensors.at(key).to_f32();
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += 0.2F * learned[i];
    tensors[key] = Tensor::from_f32(tensor.shape, values);
  }
  const Adapter adapter = make_adapter(initial.config, tensors, bench.directory / "trained");
  const auto convert_from = [&](const Adapter& beginning) {
    MakePlainOptions options = bench.options(adapter);
    options.initial = &beginning;
    options.output.dry_run = true;
    return make_plain(options);
  };
  const MakePlainReport own = convert_from(initial), foreign = convert_from(other);
  double overlap = 0, squares = 0, first_squares = 0;
  for (const LoraModule& module : adapter.modules) {
    const Matrix x = update_of(module), y = update_of(*initial.find(module.module_path));
    overlap += (x.array() * y.array()).sum();
    squares += x.squaredNorm();
    first_squares += y.squaredNorm();
  }
  CHECK(std::fabs(*own.beginning_cosine - overlap / std::sqrt(squares * first_squares)) <= 1e-9);
  CHECK(*own.beginning_cosine > 0.8);
  CHECK(own.result.notes.empty());
  CHECK(*foreign.beginning_cosine < 0.5);
  REQUIRE(foreign.result.notes.size() == 1);
  CHECK(foreign.result.notes[0].find("did not begin as this one") != std::string::npos);
}
