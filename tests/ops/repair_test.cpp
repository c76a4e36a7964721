#include "lora/ops/repair.h"

#include <limits>

#include "lora/format/safetensors.h"
#include "lora/format/torch_file.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

using Names = std::vector<std::string>;

std::string clean(const std::string& rest) { return "base_model.model." + rest; }

struct Bench {
  TempDir directory;
  std::filesystem::path damaged = directory / "damaged";
  std::filesystem::path output = directory / "repaired";

  RepairOptions options() const {
    RepairOptions result;
    result.adapter = damaged;
    result.output = output;
    return result;
  }

  void write(const TensorMap& tensors, const std::string& name = kAdapterWeightsName) const {
    std::filesystem::create_directories(damaged);
    write_safetensors(damaged / name, tensors, &pytorch_metadata(), WriteOptions{true, nullptr});
  }

  void write_config(const AdapterConfig& config) const {
    write_file(damaged / kAdapterConfigName, dump_adapter_config(config));
  }

  void write_pickle(const TensorMap& tensors, const std::string& name) const {
    std::filesystem::create_directories(damaged);
    write_file_atomically(damaged / name, WriteOptions{true, nullptr}, [&](WritableFile& file) {
      const std::vector<std::pair<std::string, Tensor>> entries(tensors.begin(), tensors.end());
      write_torch_file(file, entries);
    });
  }

  // The files of the healthy sample, to compare with.
  void require_sample(const AdapterConfig& config = sample_config()) const {
    write_sample(directory / "expected", config, sample_tensors());
    for (const char* name : {kAdapterWeightsName, kAdapterConfigName})
      REQUIRE(read_file(output / name) == read_file(directory / "expected" / name));
  }

  void require_refused(const RepairOptions& options, ErrorKind kind, std::string_view part) const {
    require_error(kind, part, [&] { repair(options); });
    REQUIRE(!std::filesystem::exists(output));
  }
};

TensorMap renamed(const std::function<std::string(std::string)>& rename) {
  TensorMap tensors;
  for (const auto& [key, tensor] : sample_tensors()) tensors[rename(key)] = tensor;
  return tensors;
}

bool has_change(const RepairReport& report, std::string_view from, std::string_view to) {
  return std::any_of(report.changes.begin(), report.changes.end(), [&](const RepairChange& change) {
    return change.from.find(from) != std::string::npos && change.to.find(to) != std::string::npos &&
           !change.why.empty();
  });
}

// A base without config.json: modules follow from names and shapes.
Checkpoint bare_base(
    const std::filesystem::path& path,
    const std::vector<std::pair<std::string, std::vector<std::int64_t>>>& weights) {
  TensorMap tensors;
  for (const auto& [name, shape] : weights) tensors[name] = normal_tensor(name, shape);
  write_safetensors(path, tensors, nullptr, WriteOptions{true, nullptr});
  return open_checkpoint(path.string());
}

// A pair of factors for a layer of 6 inputs and 6 outputs.
void add_pair(TensorMap& tensors, const std::string& path, std::int64_t rank = 2) {
  tensors[path + ".lora_A.weight"] = normal_tensor(path + "a", {rank, 6});
  tensors[path + ".lora_B.weight"] = normal_tensor(path + "b", {6, rank});
}

AdapterConfig pair_config(Names targets) {
  AdapterConfig config;
  config.peft_version = "0.21.2";
  config.rank = 2;
  config.alpha = 4;
  config.target_modules = std::move(targets);
  return config;
}

}  // namespace

TEST_CASE(
    "wrappers, missing and doubled prefixes and adapter names go, the bytes are the sample's") {
  const std::string peft = "base_model.model.";
  const std::vector<std::pair<std::string, std::function<std::string(std::string)>>> damages{
      {"_orig_mod. in 4 names", [](std::string key) { return "_orig_mod." + key; }},
      {"module. in 4 names", [](std::string key) { return "module." + key; }},
      {"_fsdp_wrapped_module. in 4 names",
       [&](std::string key) { return peft + "_fsdp_wrapped_module." + key.substr(peft.size()); }},
      {"no prefix in 4 names", [&](std::string key) { return key.substr(peft.size()); }},
      {"base_model.model. twice in 4 names", [&](std::string key) { return peft + key; }},
      {"adapter name default in 4 names",
       [](std::string key) { return key.substr(0, key.rfind('.')) + ".default.weight"; }},
  };
  for (const auto& [found, damage] : damages) {
    Bench bench;
    bench.write(renamed(damage));
    bench.write_config(sample_config());
    const RepairReport report = repair(bench.options());
    INFO(found);
    REQUIRE(report.is_written);
    REQUIRE(report.changes.size() == 1);
    REQUIRE(has_change(report, found, ""));
    REQUIRE(report.renamed.size() == 4);
    bench.require_sample();
  }
}

TEST_CASE("several damages at once are each listed") {
  Bench bench;
  bench.write(renamed([](std::string key) {
    return "module._orig_mod.base_model.model." + key.substr(0, key.rfind('.')) + ".chat.weight";
  }));
  bench.write_config(sample_config());
  const RepairReport report = repair(bench.options());
  REQUIRE(report.changes.size() == 4);
  bench.require_sample();
}

TEST_CASE("nothing to repair writes nothing unless it is asked for") {
  Bench bench;
  write_sample(bench.damaged, sample_config(), sample_tensors());
  const RepairReport report = repair(bench.options());
  REQUIRE(report.changes.empty());
  REQUIRE(!report.is_written);
  REQUIRE(entry_count(bench.directory.path()) == 1);
  RepairOptions options = bench.options();
  options.write_unchanged = true;
  REQUIRE(repair(options).is_written);
  bench.require_sample();
}

TEST_CASE("a dry run lists the changes and leaves no trace") {
  Bench bench;
  bench.write(renamed([](std::string key) { return "module." + key; }));
  bench.write_config(sample_config());
  RepairOptions options = bench.options();
  options.dry_run = true;
  const RepairReport report = repair(options);
  REQUIRE(report.changes.size() == 1);
  REQUIRE(!report.is_written);
  REQUIRE(entry_count(bench.directory.path()) == 1);
}

TEST_CASE("an existing output is kept without force, and force repairs in place") {
  Bench bench;
  bench.write(renamed([](std::string key) { return "module." + key; }));
  bench.write_config(sample_config());
  RepairOptions options = bench.options();
  options.output = bench.damaged;
  require_error(ErrorKind::output, "exists already", [&] { repair(options); });
  options.write.force = true;
  REQUIRE(repair(options).is_written);
  REQUIRE(open_adapter(bench.damaged).unclean_keys.empty());
}

TEST_CASE("a front before base_model.model. is a module, nothing, or a question") {
  TensorMap tensors;
  add_pair(tensors, "thinker.base_model.model.layers.0.q");
  Bench bench;
  bench.write(tensors);
  bench.write_config(pair_config({"q"}));
  bench.require_refused(bench.options(), ErrorKind::usage, "every name begins with thinker.");

  const Checkpoint inside =
      bare_base(bench.directory / "in.safetensors",
                {{"thinker.layers.0.q.weight", {6, 6}}, {"talker.layers.0.q.weight", {6, 6}}});
  RepairOptions options = bench.options();
  options.base = &inside;
  options.dry_run = true;
  AdapterConfig both = pair_config({"thinker.layers.0.q"});
  bench.write_config(both);
  RepairReport report = repair(options);
  REQUIRE(has_change(report, "thinker. before", "base_model.model.thinker."));
  REQUIRE(report.adapter.find("thinker.layers.0.q") != nullptr);

  const Checkpoint outside =
      bare_base(bench.directory / "out.safetensors", {{"layers.0.q.weight", {6, 6}}});
  bench.write_config(pair_config({"q"}));
  options.base = &outside;
  report = repair(options);
  REQUIRE(has_change(report, "thinker. before", "taken off"));
  REQUIRE(report.adapter.find("layers.0.q") != nullptr);

  options.base = nullptr;
  options.prefix = "thinker";
  REQUIRE(repair(options).adapter.find("layers.0.q") != nullptr);
  options.prefix = "listener.";
  bench.require_refused(options, ErrorKind::usage, "no name begins with listener.");
}

TEST_CASE("inner is taken off where the base proves it, and only mentioned without one") {
  TensorMap tensors;
  add_pair(tensors, clean("layers.0.inner.q"));
  add_pair(tensors, clean("head.inner"));
  Bench bench;
  bench.write(tensors);
  bench.write_config(pair_config({"layers.0.q", "head"}));
  const Checkpoint base = bare_base(bench.directory / "base.safetensors",
                                    {{"layers.0.q.weight", {6, 6}}, {"head.weight", {6, 6}}});
  RepairOptions options = bench.options();
  options.base = &base;
  const RepairReport report = repair(options);
  REQUIRE(has_change(report, "inner. in 4 names", "taken off"));
  const Adapter repaired = open_adapter(bench.output);
  REQUIRE(repaired.find("layers.0.q") != nullptr);
  REQUIRE(repaired.find("head") != nullptr);
  REQUIRE(repaired.config.target_modules == ModuleSelector(Names{"head", "layers.0.q"}));

  bench.write_config(pair_config({"layers.0.inner.q", "head.inner"}));
  options.base = nullptr;
  options.dry_run = true;
  const RepairReport without = repair(options);
  REQUIRE(without.changes.empty());
  REQUIRE(without.notes.at(0).find("component inner") != std::string::npos);
}

TEST_CASE("renamed modules are found by their ends, and the strength of each module moves along") {
  TensorMap tensors;
  add_pair(tensors, clean("model.layers.0.q"));
  add_pair(tensors, clean("model.layers.1.q"), 3);
  Bench bench;
  bench.write(tensors);
  AdapterConfig config = pair_config({"q"});
  config.rank_pattern = {{"^model.layers.1.q", 3}};
  config.alpha_pattern = {{"^model.layers.1.q", 12}};
  bench.write_config(config);
  const Checkpoint base = bare_base(bench.directory / "base.safetensors",
                                    {{"model.language_model.layers.0.q.weight", {6, 6}},
                                     {"model.language_model.layers.1.q.weight", {6, 6}}});
  RepairOptions options = bench.options();
  options.base = &base;
  const RepairReport report = repair(options);
  REQUIRE(has_change(report, "model.* in 2 modules", "model.language_model.*"));
  const Adapter repaired = open_adapter(bench.output);
  REQUIRE(repaired.find("model.language_model.layers.0.q")->scaling == Approx(2));
  REQUIRE(repaired.find("model.language_model.layers.1.q")->scaling == Approx(4));
  REQUIRE(repaired.find("model.language_model.layers.1.q")->rank == 3);
}

TEST_CASE("a module with two places is refused with both, and --map decides") {
  TensorMap tensors;
  add_pair(tensors, clean("layers.0.q"));
  Bench bench;
  bench.write(tensors);
  bench.write_config(pair_config({"q"}));
  const Checkpoint base =
      bare_base(bench.directory / "base.safetensors",
                {{"a.layers.0.q.weight", {6, 6}}, {"b.layers.0.q.weight", {6, 6}}});
  RepairOptions options = bench.options();
  options.base = &base;
  bench.require_refused(options, ErrorKind::incompatible,
                        "layers.0.q may be a.layers.0.q, b.layers.0.q");
  options.map = {{"layers", "b.layers"}};
  bench.write_config(pair_config({"b.layers.0.q"}));
  REQUIRE(repair(options).adapter.find("b.layers.0.q") != nullptr);
  options.map = {{"stack", "layers"}};
  options.write.force = true;
  require_error(ErrorKind::usage, "no module path has the components stack",
                [&] { repair(options); });
}

TEST_CASE("a module that the base does not have is refused with the nearest name") {
  TensorMap tensors;
  add_pair(tensors, clean("layers.7.q"));
  Bench bench;
  bench.write(tensors);
  bench.write_config(pair_config({"q"}));
  const Checkpoint base =
      bare_base(bench.directory / "base.safetensors", {{"layers.0.q.weight", {6, 6}}});
  RepairOptions options = bench.options();
  options.base = &base;
  bench.require_refused(options, ErrorKind::incompatible,
                        "layers.7.q is not in the base (nearest: layers.0.q)");
}

TEST_CASE("a lost configuration is made from the tensors once alpha is given") {
  TensorMap tensors = sample_tensors();
  tensors[clean("fc2.lora_A.weight")] = normal_tensor("a", {2, 20});
  tensors[clean("fc2.lora_B.weight")] = normal_tensor("b", {2, 2});
  for (const char* text : {"", "  \n", "{\"r\": 4, \"lora_al", "[]"}) {
    Bench bench;
    bench.write(tensors);
    if (*text != 0) write_file(bench.damaged / kAdapterConfigName, text);
    RepairOptions options = bench.options();
    bench.require_refused(options, ErrorKind::usage, "lora_alpha is lost");
    options.alpha = 8;
    bench.require_refused(options, ErrorKind::usage, "use_rslora is lost");
    options.use_rslora = false;
    repair(options);
    const Adapter repaired = open_adapter(bench.output);
    REQUIRE(repaired.problems.empty());
    REQUIRE(repaired.config.rank == 2);
    REQUIRE(repaired.config.rank_pattern == NumberPattern{{"^fc1", 4}});
    REQUIRE(repaired.config.target_modules == ModuleSelector(Names{"fc1", "fc2"}));
    REQUIRE(repaired.find("fc1")->scaling == 2);
    REQUIRE(repaired.find("fc2")->scaling == 4);
  }
}

TEST_CASE("a lost configuration takes alpha from .alpha scalars or from the manifest") {
  Bench scalars;
  TensorMap tensors = sample_tensors();
  tensors[clean("fc1.alpha")] = Tensor::from_f32({}, std::vector<float>{16});
  tensors[clean("fc2.alpha")] = Tensor::from_f32({}, std::vector<float>{2});
  scalars.write(tensors);
  repair(scalars.options());
  const Adapter from_scalars = open_adapter(scalars.output);
  REQUIRE(from_scalars.find("fc1")->scaling == 4);
  REQUIRE(from_scalars.find("fc2")->scaling == 0.5);
  REQUIRE(from_scalars.tensors.size() == 4);

  for (const bool use_rslora : {false, true}) {
    Bench recorded;
    AdapterConfig config = sample_config();
    config.rank = 8;
    config.use_rslora = use_rslora;
    config.alpha_pattern = {{"fc2", 5}};
    TensorMap wide;
    for (const auto& [key, shape] :
         std::map<std::string, std::vector<std::int64_t>>{{"fc1.lora_A.weight", {8, 10}},
                                                          {"fc1.lora_B.weight", {20, 8}},
                                                          {"fc2.lora_A.weight", {8, 20}},
                                                          {"fc2.lora_B.weight", {2, 8}}})
      wide[clean(key)] = normal_tensor(key, shape);
    const Checkpoint base = sample_base(recorded.directory / "base");
    write_sample(recorded.damaged, config, wide, &base);
    std::filesystem::remove(recorded.damaged / kAdapterConfigName);
    repair(recorded.options());
    const Adapter repaired = open_adapter(recorded.output);
    REQUIRE(repaired.config.use_rslora == use_rslora);
    REQUIRE(repaired.config.alpha == 5);
    REQUIRE(repaired.config.alpha_pattern == NumberPattern{{"^fc1", 8}});
  }
}

TEST_CASE("alpha that the configuration has is not to be given, alpha that it lost is") {
  Bench bench;
  bench.write(sample_tensors());
  bench.write_config(sample_config());
  RepairOptions options = bench.options();
  options.alpha = 3;
  bench.require_refused(options, ErrorKind::usage, "--alpha and --rslora contradict it");
  write_file(bench.damaged / kAdapterConfigName,
             R"({"peft_type": "LORA", "r": 4, "target_modules": ["fc1", "fc2"]})");
  options.alpha.reset();
  bench.require_refused(options, ErrorKind::usage, "lora_alpha is lost");
  options.alpha = 8;
  repair(options);
  bench.require_sample();
}

TEST_CASE("a wrong r is put right by the shapes, with the pattern kept where it fits") {
  Bench bench;
  bench.write(sample_tensors());
  AdapterConfig wrong = sample_config();
  wrong.rank = 64;
  bench.write_config(wrong);
  const RepairReport report = repair(bench.options());
  REQUIRE(has_change(report, "r 64", "r 4"));
  bench.require_sample();

  Bench mixed;
  TensorMap tensors = sample_tensors();
  tensors[clean("fc2.lora_A.weight")] = normal_tensor("a", {2, 20});
  tensors[clean("fc2.lora_B.weight")] = normal_tensor("b", {2, 2});
  mixed.write(tensors);
  AdapterConfig patterned = sample_config();
  patterned.rank = 64;
  patterned.rank_pattern = {{"fc2", 2}};
  mixed.write_config(patterned);
  repair(mixed.options());
  const AdapterConfig repaired = open_adapter(mixed.output).config;
  REQUIRE(repaired.rank == 4);
  REQUIRE(repaired.rank_pattern == NumberPattern{{"fc2", 2}});
}

TEST_CASE("patterns whose order decides are rewritten to whole paths with the same effect") {
  Bench bench;
  bench.write(sample_tensors());
  AdapterConfig config = sample_config();
  config.alpha_pattern = {{"fc.", 16}, {"fc2", 2}};
  bench.write_config(config);
  const Adapter before = open_adapter(bench.damaged);
  repair(bench.options());
  const Adapter after = open_adapter(bench.output);
  REQUIRE(after.config.alpha_pattern.empty());
  for (const char* path : {"fc1", "fc2"})
    REQUIRE(after.find(path)->scaling == before.find(path)->scaling);

  Bench equal;
  equal.write(sample_tensors());
  config.alpha_pattern = {{"fc.", 16}, {"fc2", 16}};
  equal.write_config(config);
  REQUIRE(repair(equal.options()).changes.empty());
}

TEST_CASE("targets that leave out modules with factors are named again") {
  Bench bench;
  bench.write(sample_tensors());
  AdapterConfig config = sample_config();
  config.target_modules = Names{"fc1"};
  config.exclude_modules = Names{"fc2"};
  bench.write_config(config);
  const RepairReport report = repair(bench.options());
  REQUIRE(has_change(report, "target_modules without fc2", "fc1, fc2"));
  bench.require_sample();
}

TEST_CASE("members of early releases and other spellings are put right") {
  Bench bench;
  bench.write(sample_tensors());
  write_file(bench.damaged / kAdapterConfigName,
             R"({"r": "4", "lora_alpha": "8", "lora_dropout": null, "use_rslora": "False",
                 "merge_weights": false, "enable_lora": null, "runtime_config": {},
                 "peft_type": "lora", "peft_version": "0.21.2", "target_modules": ["fc1", "fc2"]})");
  const RepairReport report = repair(bench.options());
  REQUIRE(report.changes.size() == 8);
  REQUIRE(has_change(report, "merge_weights", "left out"));
  bench.require_sample();
  write_file(bench.damaged / kAdapterConfigName,
             R"({"r": 4, "lora_alpha": 8, "enable_lora": [true, false, true],
                 "peft_type": "LORA", "target_modules": ["fc1", "fc2"]})");
  RepairOptions options = bench.options();
  options.output = bench.directory / "second";
  require_error(ErrorKind::usage, "enable_lora is [true, false, true]", [&] { repair(options); });
}

TEST_CASE("a configuration that no tensor can correct is refused with every fault") {
  Bench bench;
  bench.write(sample_tensors());
  write_file(bench.damaged / kAdapterConfigName,
             R"({"peft_type": "LORA", "r": 4, "lora_alpha": "much", "lora_dropout": 7,
                 "target_modules": ["fc1", "fc2"]})");
  bench.require_refused(bench.options(), ErrorKind::usage, "lora_dropout");
  bench.require_refused(bench.options(), ErrorKind::usage, "lora_alpha");
}

TEST_CASE("a pickle becomes safetensors; empty and second containers are left out with a word") {
  Bench pickle;
  pickle.write_pickle(sample_tensors(), kAdapterPickleName);
  pickle.write_config(sample_config());
  REQUIRE(has_change(repair(pickle.options()), "adapter_model.bin", "adapter_model.safetensors"));
  pickle.require_sample();

  Bench empty;
  empty.write_pickle(sample_tensors(), kAdapterPickleName);
  empty.write_config(sample_config());
  write_file(empty.damaged / kAdapterWeightsName, "");
  REQUIRE(has_change(repair(empty.options()), "adapter_model.safetensors (0 bytes)", "left out"));
  empty.require_sample();

  Bench twin;
  twin.write_pickle(sample_tensors(), kAdapterPickleName);
  twin.write(sample_tensors());
  twin.write_config(sample_config());
  const RepairReport equal = repair(twin.options());
  REQUIRE(has_change(equal, "adapter_model.bin", "left out"));
  REQUIRE(equal.notes.empty());
  twin.require_sample();
  twin.write_pickle(sample_tensors(2), kAdapterPickleName);
  RepairOptions again = twin.options();
  again.dry_run = true;
  REQUIRE(repair(again).notes.at(0).find("holds other tensors") != std::string::npos);
}

TEST_CASE("a single weights file of another name is taken, of two one must be given") {
  Bench bench;
  bench.write(sample_tensors(), "pytorch_lora.safetensors");
  bench.write_config(sample_config());
  write_file(bench.damaged / "optimizer.pt", "state");
  const RepairReport report = repair(bench.options());
  REQUIRE(has_change(report, "pytorch_lora.safetensors", "adapter_model.safetensors"));
  REQUIRE(report.left_behind == Names{"optimizer.pt"});
  bench.require_sample();
  bench.write(sample_tensors(2), "second.safetensors");
  RepairOptions options = bench.options();
  options.output = bench.directory / "other";
  require_error(ErrorKind::usage, "several files that may be the weights",
                [&] { repair(options); });
  options.adapter = bench.damaged / "second.safetensors";
  REQUIRE(repair(options).is_written);
}

TEST_CASE("tokenizer and model card come along") {
  Bench bench;
  bench.write(renamed([](std::string key) { return "module." + key; }));
  bench.write_config(sample_config());
  write_file(bench.damaged / "README.md", "card");
  write_file(bench.damaged / "tokenizer.json", "{}");
  REQUIRE(repair(bench.options()).carried == Names{"README.md", "tokenizer.json"});
  REQUIRE(read_file(bench.output / "README.md") == "card");
}

TEST_CASE("equal second names go, contradicting ones are refused") {
  Bench bench;
  TensorMap tensors = sample_tensors();
  tensors["module." + clean("fc1.lora_A.weight")] = tensors[clean("fc1.lora_A.weight")];
  bench.write(tensors);
  bench.write_config(sample_config());
  REQUIRE(has_change(repair(bench.options()), "module.base_model.model.fc1.lora_A", "left out"));
  bench.require_sample();
  tensors["module." + clean("fc1.lora_A.weight")] = normal_tensor("other", {4, 10});
  bench.write(tensors);
  RepairOptions options = bench.options();
  options.output = bench.directory / "second";
  require_error(ErrorKind::malformed, "two values for one tensor", [&] { repair(options); });
}

TEST_CASE("copies of base weights go with a base that equals them, others are refused") {
  Bench bench;
  const Checkpoint base = sample_base(bench.directory / "base");
  TensorMap tensors = sample_tensors();
  tensors[clean("fc1.base_layer.weight")] = base.tensors.at("fc1.weight");
  tensors[clean("fc2.weight")] = base.tensors.at("fc2.weight");
  bench.write(tensors);
  bench.write_config(sample_config());
  RepairOptions options = bench.options();
  bench.require_refused(options, ErrorKind::malformed, "nobody declared");
  options.base = &base;
  const RepairReport report = repair(options);
  REQUIRE(has_change(report, clean("fc2.weight"), "left out"));
  bench.require_sample();
  tensors[clean("fc2.weight")] = normal_tensor("other", {2, 20});
  bench.write(tensors);
  options.output = bench.directory / "second";
  require_error(ErrorKind::malformed, "nobody declared", [&] { repair(options); });
}

TEST_CASE("declared modules stay although they equal the base; frozen twins go") {
  Bench bench;
  const Checkpoint base = bare_base(bench.directory / "base.safetensors",
                                    {{"layers.0.q.weight", {6, 6}}, {"head.weight", {3, 6}}});
  TensorMap tensors;
  add_pair(tensors, clean("layers.0.q"));
  tensors[clean("head.modules_to_save.default.weight")] = base.tensors.at("head.weight");
  tensors[clean("head.original_module.weight")] = base.tensors.at("head.weight");
  bench.write(tensors);
  AdapterConfig config = pair_config({"q"});
  config.modules_to_save = {"head"};
  bench.write_config(config);
  RepairOptions options = bench.options();
  options.base = &base;
  const RepairReport report = repair(options);
  REQUIRE(has_change(report, "head.original_module.weight", "left out"));
  const Adapter repaired = open_adapter(bench.output);
  REQUIRE(repaired.tensors.size() == 3);
  REQUIRE(repaired.replacements.contains("head.weight"));
}

TEST_CASE("DoRA magnitudes get PEFT's name and the switch that belongs to them") {
  Bench bench;
  TensorMap tensors = sample_tensors();
  tensors[clean("fc1.lora_magnitude_vector.weight")] = normal_tensor("m", {20});
  tensors[clean("fc2.lora_magnitude_vector.weight")] = normal_tensor("n", {2});
  bench.write(tensors);
  bench.write_config(sample_config());
  const RepairReport report = repair(bench.options());
  REQUIRE(has_change(report, "lora_magnitude_vector.weight in 2 names", "lora_magnitude_vector"));
  REQUIRE(has_change(report, "use_dora false", "use_dora true"));
  REQUIRE(open_adapter(bench.output).tensors.contains(clean("fc1.lora_magnitude_vector")));
}

TEST_CASE("what is lost is refused: NaN, no elements, half pairs, cut files") {
  const auto refused = [](const std::string& key, const Tensor* tensor, std::string_view part) {
    Bench bench;
    TensorMap tensors = sample_tensors();
    if (tensor == nullptr) {
      tensors.erase(key);
    } else {
      tensors[key] = *tensor;
    }
    bench.write(tensors);
    bench.write_config(sample_config());
    bench.require_refused(bench.options(), ErrorKind::malformed, part);
  };
  const std::vector<float> bad(40, std::numeric_limits<float>::quiet_NaN());
  const Tensor nan = Tensor::from_f32({4, 10}, bad);
  const Tensor empty = Tensor::from_bytes(DType::f32, {0}, {});
  refused(clean("fc1.lora_A.weight"), &nan, "not finite: base_model.model.fc1.lora_A.weight");
  refused(clean("fc1.lora_A.weight"), &empty, "hold no elements");
  refused(clean("fc1.lora_B.weight"), nullptr, "has no counterpart");

  Bench cut;
  cut.write(sample_tensors());
  cut.write_config(sample_config());
  const std::string whole = read_file(cut.damaged / kAdapterWeightsName);
  write_file(cut.damaged / kAdapterWeightsName, whole.substr(0, whole.size() - 5));
  try {
    repair(cut.options());
    FAIL("no error");
  } catch (const Error& error) {
    REQUIRE(error.kind() == ErrorKind::malformed);
    REQUIRE(error.hint().find("cannot be brought back") != std::string::npos);
  }
  Bench nothing;
  std::filesystem::create_directories(nothing.damaged);
  nothing.require_refused(nothing.options(), ErrorKind::malformed, "found no weights");
}

TEST_CASE(
    "values that the manifest does not record are refused; recorded ones keep their history") {
  Bench bench;
  const Checkpoint base = sample_base(bench.directory / "base");
  write_sample(bench.damaged, sample_config(), sample_tensors(), &base);
  bench.write(renamed([](std::string key) { return "_orig_mod." + key; }));
  repair(bench.options());
  const auto manifest = read_manifest(bench.output);
  REQUIRE(manifest->base_root == compute_base_lock(base, 1).root);
  REQUIRE(*manifest->history.back().find("operation") == Json("repair"));
  bench.write(sample_tensors(9));
  RepairOptions options = bench.options();
  options.output = bench.directory / "second";
  require_error(ErrorKind::malformed, "not those that lora_manifest.json records",
                [&] { repair(options); });
}

TEST_CASE("a configuration that the manifest contradicts gets the recorded strength back") {
  Bench bench;
  const Checkpoint base = sample_base(bench.directory / "base");
  write_sample(bench.damaged, sample_config(), sample_tensors(), &base);
  AdapterConfig edited = sample_config();
  edited.alpha = 64;
  bench.write_config(edited);
  REQUIRE(has_change(repair(bench.options()), "lora_alpha 64", "lora_alpha 8"));
  bench.require_sample();
}

TEST_CASE("a dtype is cast on request only, and overflow is an error") {
  Bench bench;
  bench.write(sample_tensors());
  bench.write_config(sample_config());
  RepairOptions options = bench.options();
  options.dtype = DType::bf16;
  REQUIRE(has_change(repair(options), "F32 in 4 tensors", "BF16"));
  REQUIRE(open_adapter(bench.output).find("fc1")->a.dtype == DType::bf16);
  TensorMap large = sample_tensors();
  large[clean("fc2.lora_B.weight")] = Tensor::from_f32({2, 4}, std::vector<float>(8, 70000.0F));
  bench.write(large);
  options.dtype = DType::f16;
  options.output = bench.directory / "second";
  require_error(ErrorKind::incompatible, "fc2.lora_B.weight holds 70000 at element 0",
                [&] { repair(options); });
}

TEST_CASE("several adapters in one file are not repaired but taken apart by save") {
  Bench bench;
  TensorMap tensors;
  for (const auto& [key, tensor] : sample_tensors())
    for (const char* name : {".a.weight", ".b.weight"})
      tensors[key.substr(0, key.rfind('.')) + name] = tensor;
  bench.write(tensors);
  bench.write_config(sample_config());
  bench.require_refused(bench.options(), ErrorKind::usage, "several adapters: a, b");
}

TEST_CASE("biases that were never saved leave an honest configuration and a note") {
  Bench bench;
  bench.write(sample_tensors());
  AdapterConfig config = sample_config();
  config.bias = BiasMode::lora_only;
  bench.write_config(config);
  const RepairReport report = repair(bench.options());
  REQUIRE(has_change(report, "bias lora_only", "bias none"));
  REQUIRE(report.notes.at(0).find("they are lost") != std::string::npos);
  bench.require_sample();
}

TEST_CASE("indices of token rows cannot be made up") {
  Bench bench;
  TensorMap tensors = sample_tensors();
  tensors[clean("emb.token_adapter.trainable_tokens_delta")] = normal_tensor("t", {2, 4});
  bench.write(tensors);
  bench.require_refused(bench.options(), ErrorKind::usage, "trainable_token_indices (emb)");
}
