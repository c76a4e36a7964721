#include "ops/derived_adapter.h"

#include "lora/adapter/strength.h"
#include "lora/ops/verify.h"
#include "ops/adapter_digest.h"
#include "support/faulty_file_system.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

struct Bench {
  TempDir directory;
  std::filesystem::path source = directory / "source";
  std::filesystem::path output = directory / "output";

  Bench() { write_sample(source, sample_config(), sample_tensors()); }

  Adapter open() const { return open_adapter(source); }

  DerivedOptions options() const {
    DerivedOptions result;
    result.output = output;
    return result;
  }

  Operation operation(const Adapter& adapter) const {
    return {"halve",
            JsonObject{{"rank", 2}},
            {lineage_of(adapter, read_manifest(adapter.directory()), 1)}};
  }

  // fc1 gets two of its four rank rows, with the same scaling.
  DerivedReport halve(const DerivedOptions& options) const {
    const Adapter adapter = open();
    std::map<std::string, SiteFactors> factors;
    factors["fc1"] = {normal_tensor("a", {2, 10}), normal_tensor("b", {20, 2}), 2, 2};
    return write_derived(adapter, with_strengths(adapter, factors), with_factors(adapter, factors),
                         operation(adapter), options);
  }
};

std::vector<Finding> findings_of(const std::filesystem::path& path, const std::string& rule) {
  VerifyOptions options;
  options.adapter = path;
  std::vector<Finding> found;
  for (const Finding& finding : verify(options).findings)
    if (finding.rule == rule) found.push_back(finding);
  return found;
}

}  // namespace

TEST_CASE("alpha_for inverts the scaling, with an integer where one does", "[derived]") {
  CHECK(alpha_for(2, 8, false) == 16);
  CHECK(alpha_for(16.0 / 12, 24, false) == 32);
  CHECK(alpha_for(16 / std::sqrt(8.0), 8, true) == 16);
  for (int alpha = 1; alpha < 40; ++alpha)
    for (int from = 1; from < 40; ++from)
      for (int to = 1; to < 40; ++to) {
        const double scaling = static_cast<double>(alpha) / from;
        const double found = alpha_for(scaling, to, false);
        CHECK(static_cast<float>(found / to) == static_cast<float>(scaling));
        if (alpha * to % from == 0) CHECK(found / to == scaling);
      }
}

TEST_CASE("set_strengths writes r, lora_alpha and patterns that give what was asked", "[derived]") {
  AdapterConfig config = sample_config();
  const std::map<std::string, SiteStrength> wanted{
      {"a.q", {2, 2}}, {"a.v", {2, 2}}, {"b.q", {2, 0.5}}, {"b.q(1)", {5, 3}}};
  set_strengths(config, wanted);
  CHECK(config.rank == 2);
  CHECK(config.alpha == 4);
  CHECK(config.rank_pattern == NumberPattern{{"^b.q\\(1\\)", 5}});
  CHECK(config.alpha_pattern == NumberPattern{{"^b.q", 1}, {"^b.q\\(1\\)", 15}});
  const PatternTable table(config);
  for (const auto& [path, strength] : wanted) {
    CHECK(table.rank_of(path) == strength.rank);
    CHECK(table.scaling_of(path, strength.rank) == strength.scaling);
  }
}

TEST_CASE("a configuration that gives the strengths already stays as it is", "[derived]") {
  AdapterConfig config = sample_config();
  config.rank_pattern = {{"q", 2}};
  config.alpha_pattern = {{"q", 4}};
  const std::string before = dump_adapter_config(config);
  set_strengths(config, {{"a.q", {2, 2}}, {"a.v", {4, 2}}});
  CHECK(dump_adapter_config(config) == before);
}

TEST_CASE("new factors are written with their strength, the rest stays", "[derived]") {
  const Bench bench;
  const DerivedReport report = bench.halve(bench.options());
  CHECK(report.is_written);
  const Adapter written = open_adapter(bench.output);
  CHECK(written.problems.empty());
  CHECK(written.find("fc1")->rank == 2);
  CHECK(written.find("fc1")->scaling == 2);
  CHECK(written.find("fc2")->rank == 4);
  CHECK(written.find("fc2")->scaling == 2);
  CHECK(written.find("fc2")->a.to_f32() == bench.open().find("fc2")->a.to_f32());
  CHECK(report.digest == adapter_digest(written, 1));
}

TEST_CASE("every fault while writing leaves nothing behind", "[derived]") {
  const Bench bench;
  FaultyFileSystem whole;
  {
    const TempDir other;
    DerivedOptions options = bench.options();
    options.output = other / "output";
    options.write.file_system = &whole;
    bench.halve(options);
  }
  for (std::uint64_t bytes = 0; bytes < 3000; bytes += 97) {
    FaultyFileSystem full;
    full.bytes_until_full = bytes;
    DerivedOptions options = bench.options();
    options.write.file_system = &full;
    require_error(ErrorKind::output, "injected", [&] { bench.halve(options); });
    CHECK(entry_count(bench.directory.path()) == 1);
  }
  for (int rename = 1; rename <= whole.renames; ++rename) {
    FaultyFileSystem faulty;
    faulty.refused_rename = rename;
    DerivedOptions options = bench.options();
    options.write.file_system = &faulty;
    require_error(ErrorKind::output, "injected", [&] { bench.halve(options); });
    CHECK(entry_count(bench.directory.path()) == 1);
  }
}

TEST_CASE("a dry run writes nothing and reports the same", "[derived]") {
  const Bench bench;
  DerivedOptions options = bench.options();
  options.dry_run = true;
  const DerivedReport dry = bench.halve(options);
  CHECK_FALSE(dry.is_written);
  CHECK(entry_count(bench.directory.path()) == 1);
  CHECK(bench.halve(bench.options()).digest == dry.digest);
}

TEST_CASE("what cannot be a source is refused with every offender", "[derived]") {
  const Bench bench;
  TensorMap tensors = sample_tensors();
  tensors.erase("base_model.model.fc2.lora_B.weight");
  std::vector<float> values = tensors.at("base_model.model.fc1.lora_A.weight").to_f32();
  values[3] = std::numeric_limits<float>::quiet_NaN();
  tensors["base_model.model.fc1.lora_A.weight"] = Tensor::from_f32({4, 10}, values);
  const Adapter broken = make_adapter(sample_config(), tensors, bench.source);
  require_error(ErrorKind::malformed, "fc1.lora_A.weight holds NaN or infinity",
                [&] { require_source("resize", broken, bench.options()); });
  require_error(ErrorKind::malformed, "fc2.lora_A.weight has no counterpart",
                [&] { require_source("resize", broken, bench.options()); });
  DerivedOptions onto = bench.options();
  onto.output = bench.source;
  onto.write.force = true;
  require_error(ErrorKind::usage, "it is or holds the adapter",
                [&] { require_source("resize", bench.open(), onto); });
  onto.output = bench.directory.path();
  require_error(ErrorKind::usage, "it is or holds the adapter",
                [&] { require_source("resize", bench.open(), onto); });
  bench.halve(bench.options());
  require_error(ErrorKind::output, "exists",
                [&] { require_source("resize", bench.open(), bench.options()); });
}

TEST_CASE("the manifest carries the record of the base and the history", "[derived]") {
  const Bench bench;
  const Checkpoint base = sample_base(bench.directory / "base");
  write_sample(bench.source, sample_config(), sample_tensors(), &base);
  bench.halve(bench.options());
  const Manifest before = *read_manifest(bench.source);
  const Manifest after = *read_manifest(bench.output);
  CHECK(after.base_root == before.base_root);
  CHECK(after.base_tensors == before.base_tensors);
  REQUIRE(after.history.size() == 1);
  const Json& entry = after.history[0];
  CHECK(*entry.find("operation")->as_string() == "halve");
  CHECK(*entry.find("inputs")->as_array()->at(0).find("adapter")->as_string() ==
        adapter_digest(bench.open(), 1).hex());
  CHECK(*entry.find("result")->as_string() == adapter_digest(open_adapter(bench.output), 1).hex());
  CHECK(findings_of(bench.output, "LV413").empty());
}

TEST_CASE("verify follows the history from step to step", "[derived][rules]") {
  Bench bench;
  bench.halve(bench.options());
  Manifest manifest = *read_manifest(bench.output);
  const auto rewrite = [&](const Manifest& changed) {
    std::ofstream(bench.output / kManifestName) << dump_json(to_json(changed));
  };
  const Digest digest = adapter_digest(open_adapter(bench.output), 1);
  // A second step from this one: sound, and no longer so when the first gave something else.
  Operation next{"scale", {}, {{digest, manifest.history}}};
  Manifest longer = manifest;
  longer.history = history_after(next, digest);
  rewrite(longer);
  CHECK(findings_of(bench.output, "LV413").empty());
  (*longer.history[0].as_object())["result"] = std::string(64, '0');
  rewrite(longer);
  const auto broken = findings_of(bench.output, "LV413");
  REQUIRE(broken.size() == 1);
  CHECK(broken[0].message.find("step 2 (scale) was made from " + digest.hex().substr(0, 12)) !=
        std::string::npos);
  // The record of another adapter.
  Manifest other = manifest;
  (*other.history[0].as_object())["result"] = std::string(64, 'a');
  rewrite(other);
  REQUIRE(findings_of(bench.output, "LV413").size() == 1);
  // A step that records no digest, such as save, proves and contradicts nothing.
  other.history.push_back(JsonObject{{"operation", "save"}});
  rewrite(other);
  CHECK(findings_of(bench.output, "LV413").empty());
}

TEST_CASE("several inputs keep their histories inside the entry", "[derived]") {
  const Digest digest = sha256({});
  const JsonArray own{JsonObject{{"operation", "train"}}};
  Operation operation{"combine", {}, {{digest, own, 0.5}, {digest, {}}}};
  const JsonArray history = history_after(operation, digest);
  REQUIRE(history.size() == 1);
  const JsonArray& inputs = *history[0].find("inputs")->as_array();
  CHECK(*inputs[0].find("history")->as_array() == own);
  CHECK(*inputs[0].find("weight")->as_double() == 0.5);
  CHECK(inputs[1].find("history") == nullptr);
  CHECK(inputs[1].find("weight") == nullptr);
}

TEST_CASE("the digest of an adapter sees values, strengths and layouts, not spellings",
          "[derived]") {
  const Bench bench;
  const Digest digest = adapter_digest(bench.open(), 1);
  AdapterConfig config = sample_config();
  config.dropout = 0.1;
  CHECK(adapter_digest(make_adapter(config, sample_tensors(), "x"), 1) == digest);
  config.alpha = 9;
  CHECK(adapter_digest(make_adapter(config, sample_tensors(), "x"), 1) != digest);
  CHECK(adapter_digest(make_adapter(sample_config(), sample_tensors(2), "x"), 1) != digest);
  config = sample_config();
  config.init_lora_weights = "pissa";
  CHECK(adapter_digest(make_adapter(config, sample_tensors(), "x"), 1) != digest);
}
