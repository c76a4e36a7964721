// combine: what it refuses, and that nothing is left behind.
#include <limits>

#include "adapter/kinds.h"
#include "ops/combine_bench.h"
#include "support/faulty_file_system.h"

using namespace lora;
using namespace lora::testing;

namespace {

struct Bench : CombineBench {
  fs::path a = add("a", 4, 8), b = add("b", 4, 2);

  void refuse(ErrorKind kind, std::string_view part, CombineMethod method,
              const std::vector<std::pair<fs::path, double>>& adapters,
              const CombineOptions& options = {}) const {
    require_error(kind, part, [&] { run(method, adapters, options); });
    REQUIRE(!fs::exists(output));
  }

  static CombineOptions with_density(double density) {
    CombineOptions options;
    options.density = density;
    return options;
  }
};

}  // namespace

TEST_CASE("combine refuses options that do not go together", "[combine]") {
  const Bench bench;
  const auto both = std::vector<std::pair<fs::path, double>>{{bench.a, 1}, {bench.b, 1}};
  const auto usage = [&](std::string_view part, CombineMethod method,
                         const CombineOptions& options = {}) {
    bench.refuse(ErrorKind::usage, part, method, both, options);
  };
  CombineOptions rank, energy, compat, saved;
  rank.rank = 3;
  energy.energy = 0.0;
  compat.compat = PeftCompat::v0_21;
  saved.saved_from = 3;
  usage("follows from the adapters", CombineMethod::cat, rank);
  usage("follows from the adapters", CombineMethod::ties, rank);
  usage("--energy must be above 0", CombineMethod::svd, energy);
  energy.energy = 0.9;
  energy.rank = 2;
  usage("exclude each other", CombineMethod::svd, energy);
  usage("needs --density", CombineMethod::ties_svd);
  usage("no --density", CombineMethod::cat, Bench::with_density(0.5));
  usage("at most 1", CombineMethod::ties, Bench::with_density(1.5));
  usage("above 0", CombineMethod::dare_linear, Bench::with_density(0));
  usage("PEFT has no method slerp", CombineMethod::slerp, compat);
  compat.energy = 0.5;
  usage("PEFT knows no --energy", CombineMethod::svd, compat);
  usage("--saved-from counts", CombineMethod::cat, saved);
  bench.refuse(ErrorKind::usage, "no adapter", CombineMethod::cat, {});
  bench.refuse(ErrorKind::usage, "two adapters", CombineMethod::slerp, {{bench.a, 1}});
  bench.refuse(ErrorKind::usage, "not negative", CombineMethod::slerp,
               {{bench.a, 1}, {bench.b, -0.5}});
  bench.refuse(ErrorKind::usage, "would do nothing", CombineMethod::cat,
               {{bench.a, 0}, {bench.b, 0}});
  bench.refuse(ErrorKind::usage, "finite", CombineMethod::cat,
               {{bench.a, std::numeric_limits<double>::infinity()}});
  require_error(ErrorKind::usage, "expected one of cat", [] { combine_method_named("sum"); });
  require_error(ErrorKind::usage, "0.20 or 0.21", [] { peft_compat_named("0.2"); });
  CHECK(peft_compat_named("0.20") == PeftCompat::v0_20);
  CHECK(peft_compat_named("0.21.2") == PeftCompat::v0_21);
}

TEST_CASE("one adapter is combined with any method but slerp", "[combine]") {
  CombineBench bench;
  const fs::path a = bench.add("a", 2, 8);
  const Dense update = update_of(open_adapter(a), "fc1");
  for (const auto method :
       {CombineMethod::cat, CombineMethod::svd, CombineMethod::linear, CombineMethod::knots}) {
    bench.run(method, {{a, -2}});
    INFO(to_string(method));
    CHECK((update_of(bench.result(), "fc1") + 2 * update).norm() <= 1e-6 * update.norm());
  }
  CombineOptions options;
  options.density = 1;
  for (const auto method : {CombineMethod::ties, CombineMethod::dare_ties_svd}) {
    bench.run(method, {{a, 1}}, options);
    CHECK((update_of(bench.result(), "fc1") - update).norm() <= 1e-6 * update.norm());
  }
}

TEST_CASE("methods on factors need equal ranks, site by site", "[combine]") {
  Bench bench;
  const fs::path c = bench.add("c", 4, 8, {"fc1", "fc2"}, 2);
  bench.refuse(ErrorKind::incompatible, "fc2 (4 and 2)", CombineMethod::linear,
               {{bench.a, 1}, {c, 1}});
  bench.refuse(ErrorKind::incompatible, "fc2 (4 and 2)", CombineMethod::dare_ties,
               {{bench.a, 1}, {c, 1}}, Bench::with_density(0.5));
  // A site that one adapter alone has is its own.
  const fs::path d = bench.add("d", 4, 8, {"fc1"});
  bench.run(CombineMethod::linear, {{d, 0.5}, {bench.b, 2}});
  const Dense expected = 2 * update_of(open_adapter(bench.b), "fc2");
  CHECK((update_of(bench.result(), "fc2") - expected).norm() <= 1e-6 * expected.norm());
}

TEST_CASE("combine refuses updates that are no sums, by name", "[combine]") {
  Bench bench;
  const auto changed = [&](const std::string& name, auto&& change) {
    Adapter adapter = open_adapter(bench.b);
    change(adapter);
    return bench.add(name, adapter.config, adapter.tensors);
  };
  const fs::path dora = changed("dora", [](Adapter& adapter) {
    adapter.config.use_dora = true;
    adapter.tensors["base_model.model.fc1.lora_magnitude_vector"] = normal_tensor("m", {20});
    adapter.tensors["base_model.model.fc2.lora_magnitude_vector"] = normal_tensor("m", {2});
  });
  bench.refuse(ErrorKind::unsupported, "DoRA", CombineMethod::cat, {{bench.a, 1}, {dora, 1}});
  const fs::path alora = changed("alora", [](Adapter& adapter) {
    adapter.config.other["alora_invocation_tokens"] = JsonArray{1, 2};
  });
  bench.refuse(ErrorKind::unsupported, "alora_invocation_tokens", CombineMethod::svd,
               {{bench.a, 1}, {alora, 1}});
  const fs::path pissa =
      changed("pissa", [](Adapter& adapter) { adapter.config.init_lora_weights = Json("pissa"); });
  bench.refuse(ErrorKind::unsupported, "pissa", CombineMethod::cat, {{pissa, 1}});
  const fs::path bias = changed("bias", [](Adapter& adapter) {
    adapter.config.lora_bias = true;
    adapter.tensors["base_model.model.fc1.lora_B.bias"] = normal_tensor("v", {20});
    adapter.tensors["base_model.model.fc2.lora_B.bias"] = normal_tensor("v", {2});
  });
  bench.refuse(ErrorKind::unsupported, "lora_bias", CombineMethod::ties, {{bench.a, 1}, {bias, 1}},
               Bench::with_density(0.5));
  // Sums of multiples take the biases along.
  bench.run(CombineMethod::cat, {{bench.a, 1}, {bias, -3}});
  const LoraModule module = *bench.result().find("fc1");
  const double scaling = open_adapter(bias).find("fc1")->scaling;
  const std::vector<double> from = normal_tensor("v", {20}).to_f64();
  for (std::size_t i = 0; i < 20; ++i)
    CHECK(module.bias->to_f64()[i] * module.scaling == Approx(-3 * scaling * from[i]));
}

TEST_CASE("combine refuses damaged adapters and values that are not finite", "[combine]") {
  Bench bench;
  Adapter adapter = open_adapter(bench.b);
  std::vector<float> values = adapter.tensors.at("base_model.model.fc1.lora_A.weight").to_f32();
  values[3] = std::numeric_limits<float>::quiet_NaN();
  adapter.tensors["base_model.model.fc1.lora_A.weight"] = Tensor::from_f32({4, 10}, values);
  const fs::path broken = bench.add("nan", adapter.config, adapter.tensors);
  bench.refuse(ErrorKind::malformed, "fc1.lora_A.weight holds NaN", CombineMethod::cat,
               {{bench.a, 1}, {broken, 1}});
  adapter.tensors.erase("base_model.model.fc1.lora_A.weight");
  const fs::path half = bench.add("half", adapter.config, adapter.tensors);
  bench.refuse(ErrorKind::malformed, "fc1", CombineMethod::cat, {{bench.a, 1}, {half, 1}});
  bench.refuse(ErrorKind::incompatible, "range of F32", CombineMethod::cat,
               {{bench.a, 1e300}, {bench.b, 1}});
}

TEST_CASE("combine refuses adapters of different bases", "[combine]") {
  Bench bench;
  const Checkpoint one = sample_base(bench.directory / "base", 0);
  const Checkpoint two = sample_base(bench.directory / "other", 1);
  write_sample(bench.a, sample_config(), sample_tensors(1), &one);
  write_sample(bench.b, sample_config(), sample_tensors(2), &two);
  bench.refuse(ErrorKind::incompatible, "record bases with the roots", CombineMethod::cat,
               {{bench.a, 1}, {bench.b, 1}});
  // Without roots the digests of single weights speak.
  for (const fs::path& path : {bench.a, bench.b}) {
    const Adapter adapter = open_adapter(path);
    Manifest manifest = read_manifest(path).value();
    manifest.base_root.reset();
    AtomicDirectory out(path, WriteOptions{true, nullptr});
    write_adapter(out, adapter.config, adapter.tensors);
    write_manifest(out, manifest);
    out.commit();
  }
  const bool keeps_digests = !read_manifest(bench.a)->base_tensors.empty();
  if (keeps_digests)
    bench.refuse(ErrorKind::incompatible, "different weights of the base", CombineMethod::cat,
                 {{bench.a, 1}, {bench.b, 1}});
  write_sample(bench.a, sample_config(), sample_tensors(1), &one);
  write_sample(bench.b, sample_config(), sample_tensors(2), &two);
  CombineOptions options;
  options.any_base = true;
  bench.run(CombineMethod::cat, {{bench.a, 1}, {bench.b, 1}}, options);
  CHECK_FALSE(read_manifest(bench.output)->base_root.has_value());
  // Other names alone prove nothing, and are said.
  write_sample(bench.b, sample_config(), sample_tensors(2), &one);
  bench.run(CombineMethod::cat, {{bench.a, 1}, {bench.b, 1}});
  CHECK(read_manifest(bench.output)->base_root.has_value());
  Adapter named = open_adapter(bench.a);
  named.config.base_model_name_or_path = "here";
  const fs::path x = bench.add("x", named.config, named.tensors);
  named.config.base_model_name_or_path = "there";
  const fs::path y = bench.add("y", named.config, named.tensors);
  const CombineReport report = bench.run(CombineMethod::cat, {{x, 1}, {y, 1}});
  REQUIRE(report.notes.size() == 1);
  CHECK(report.notes[0].find("name different bases") != std::string::npos);
}

TEST_CASE("sites of different shapes are named", "[combine]") {
  Bench bench;
  TensorMap tensors = sample_tensors();
  tensors["base_model.model.fc1.lora_A.weight"] = normal_tensor("a", {4, 12});
  const fs::path c = bench.add("c", sample_config(), tensors);
  bench.refuse(ErrorKind::incompatible, "fc1 is [20, 10] and [20, 12]", CombineMethod::cat,
               {{bench.a, 1}, {c, 1}});
}

TEST_CASE("saved modules are taken over, and conflicts named", "[combine]") {
  Bench bench;
  const auto saving = [&](const std::string& name, std::uint64_t seed) {
    Adapter adapter = open_adapter(bench.add(name, 4, 8, {"fc1"}));
    adapter.config.modules_to_save = {"head"};
    adapter.tensors["base_model.model.head.weight"] = normal_tensor("head", {3, 2}, 1, seed);
    return bench.add(name, adapter.config, adapter.tensors);
  };
  const fs::path one = saving("one", 1), same = saving("same", 1), two = saving("two", 2);
  CombineReport report = bench.run(CombineMethod::cat, {{one, 0.5}, {bench.b, 0.5}, {same, 1}});
  CHECK(report.saved == std::vector<std::string>{"head.weight"});
  CHECK(bench.result().config.modules_to_save == std::vector<std::string>{"head"});
  CHECK(complaints_about(bench.output).empty());
  fs::remove_all(bench.output);
  bench.refuse(ErrorKind::incompatible, "head.weight (by ", CombineMethod::cat,
               {{one, 1}, {two, 1}});
  for (const std::size_t chosen : {1U, 2U}) {
    CombineOptions options;
    options.saved_from = chosen;
    options.dtype = DType::f16;  // of the factors: what was trained whole stays as it was
    bench.run(CombineMethod::cat, {{one, 1}, {two, 1}}, options);
    CHECK(bench.result().find("fc1")->a.dtype == DType::f16);
    CHECK(bench.result().replacements.at("head.weight").to_f32() ==
          normal_tensor("head", {3, 2}, 1, chosen).to_f32());
  }
  // Nobody's choice: the chosen one has none.
  CombineOptions options;
  options.saved_from = 1;
  fs::remove_all(bench.output);
  bench.refuse(ErrorKind::incompatible, "head.weight", CombineMethod::cat,
               {{bench.b, 1}, {one, 1}, {two, 1}}, options);
  // A module that one replaces cannot be changed by another.
  const fs::path changing = bench.add("changing", 4, 8);
  Adapter replacing = open_adapter(bench.add("replacing", 4, 8, {"fc1"}));
  replacing.config.modules_to_save = {"fc2"};
  replacing.tensors["base_model.model.fc2.weight"] = normal_tensor("w", {2, 20});
  const fs::path whole = bench.add("replacing", replacing.config, replacing.tensors);
  bench.refuse(ErrorKind::incompatible, "touch the same module", CombineMethod::cat,
               {{changing, 1}, {whole, 1}});
}

TEST_CASE("targets of the result mean exactly its sites", "[combine]") {
  CombineBench bench;
  using Names = std::vector<std::string>;
  const fs::path one = bench.add("one", 2, 2, {"fc1"}), two = bench.add("two", 2, 2, {"fc2"});
  bench.run(CombineMethod::cat, {{one, 1}, {two, 1}});
  CHECK(std::get<Names>(bench.result().config.target_modules) == Names{"fc1", "fc2"});
  const auto selecting = [&](const fs::path& path, const ModuleSelector& selector) {
    Adapter adapter = open_adapter(path);
    adapter.config.target_modules = selector;
    bench.add(path.filename().string(), adapter.config, adapter.tensors);
  };
  selecting(one, std::string("fc1"));
  bench.run(CombineMethod::cat, {{one, 1}, {two, 1}});
  CHECK(std::get<Names>(bench.result().config.target_modules) == Names{"fc1", "fc2"});
  selecting(two, std::string("f.2"));
  bench.run(CombineMethod::cat, {{one, 1}, {two, 1}});
  CHECK(std::get<std::string>(bench.result().config.target_modules) == "(fc1)|(f.2)");
  CHECK(complaints_about(bench.output).empty());
}

TEST_CASE("combine writes nowhere it reads from, and replaces only when told to", "[combine]") {
  Bench bench;
  bench.output = bench.a;
  require_error(ErrorKind::usage, "the adapter", [&] {
    bench.run(CombineMethod::cat, {{bench.a, 1}, {bench.b, 1}});
  });
  bench.output = bench.directory.path();
  require_error(ErrorKind::usage, "the adapter", [&] {
    bench.run(CombineMethod::cat, {{bench.a, 1}, {bench.b, 1}});
  });
  CombineOptions options;
  options.method = CombineMethod::cat;
  options.adapters = {{open_adapter(bench.a), 1}, {open_adapter(bench.b), 1}};
  options.output = bench.directory / "there";
  write_file(options.output / "mine", "mine");
  require_error(ErrorKind::output, "exists", [&] { combine(options); });
  CHECK(read_file(options.output / "mine") == "mine");
  options.dry_run = true;
  options.output = bench.directory / "dry";
  const CombineReport report = combine(options);
  CHECK_FALSE(report.is_written);
  CHECK(report.bytes > 0);
  CHECK(!fs::exists(options.output));
}

TEST_CASE("every fault while writing a combination leaves nothing behind", "[combine]") {
  Bench bench;
  const std::size_t before = entry_count(bench.directory.path());
  const auto attempt = [&](FaultyFileSystem& system) {
    CombineOptions options;
    options.method = CombineMethod::cat;
    options.adapters = {{open_adapter(bench.a), 1}, {open_adapter(bench.b), 1}};
    options.output = bench.output;
    options.file_system = &system;
    combine(options);
  };
  FaultyFileSystem whole;
  attempt(whole);
  std::uint64_t size = 0;
  for (const auto& entry : fs::directory_iterator(bench.output)) size += entry.file_size();
  fs::remove_all(bench.output);
  for (std::uint64_t bytes = 0; bytes < size; bytes += 331) {
    FaultyFileSystem system;
    system.bytes_until_full = bytes;
    require_error(ErrorKind::output, "no space left", [&] { attempt(system); });
    REQUIRE(entry_count(bench.directory.path()) == before);
  }
  for (const int kind : {0, 1, 2}) {
    FaultyFileSystem system;
    system.refuses_create = kind == 0;
    system.refuses_sync = kind == 1;
    system.refused_rename = kind == 2;
    require_error(ErrorKind::output, "injected", [&] { attempt(system); });
    REQUIRE(entry_count(bench.directory.path()) == before);
  }
}

TEST_CASE("every kind is doubled exactly by cat, kept by svd, or refused by name", "[combine]") {
  std::size_t combined = 0;
  for (const KindFixture& kind : kind_fixtures()) {
    INFO(kind.name);
    const Adapter source = open_adapter(kind.path);
    for (const auto method : {CombineMethod::cat, CombineMethod::svd}) {
      const TempDir directory;
      CombineOptions options;
      options.method = method;
      options.adapters = {{source, 0.75}, {source, 0.5}};
      options.output = directory / "out";
      try {
        combine(options);
      } catch (const Error& error) {
        INFO(error.message());
        REQUIRE((error.kind() == ErrorKind::unsupported ||
                 error.kind() == ErrorKind::incompatible || error.kind() == ErrorKind::malformed));
        REQUIRE(!fs::exists(options.output));
        continue;
      }
      ++combined;
      const Adapter result = open_adapter(options.output);
      REQUIRE(result.problems.empty());
      REQUIRE(result.modules.size() == source.modules.size());
      for (const LoraModule& module : source.modules) {
        INFO(module.module_path);
        const LoraModule* found = result.find(module.module_path);
        REQUIRE(found != nullptr);
        REQUIRE(found->times == module.times);
        const Dense expected = 1.25 * update_of(module);
        REQUIRE((update_of(*found) - expected).norm() <= 1e-5 * expected.norm());
      }
      // One adapter beside itself has every rank row twice, and verify says so (LV408).
      const Checkpoint base = open_checkpoint(kind.base.string());
      const std::string before = complaints_about(kind.path, &base);
      const std::string after = complaints_about(
          options.output, &base, method == CombineMethod::cat ? "LV408" : std::string());
      INFO(before << " / " << after);
      REQUIRE((after.empty() || !before.empty()));
    }
  }
  REQUIRE(combined > 100);
}
