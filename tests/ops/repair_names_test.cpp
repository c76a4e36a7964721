// What repair makes of names.
#include "ops/repair_bench.h"

using namespace lora;
using namespace lora::testing;

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

TEST_CASE("several adapters in one file are not repaired but taken apart by save") {
  Bench bench;
  TensorMap tensors;
  for (const auto& [key, tensor] : sample_tensors())
    for (const char* name : {".a.weight", ".b.weight"})
      tensors[key.substr(0, key.rfind('.')) + name] = tensor;
  bench.write(tensors);
  bench.write_config(sample_config());
  bench.require_refused(bench.options(), ErrorKind::usage, "several adapters: a, b");
  // Keys without a name are those of "default".
  TensorMap half = sample_tensors();
  const std::string key = clean("fc1.lora_A");
  half[key + ".a.weight"] = half.at(key + ".weight");
  half.erase(key + ".weight");
  bench.write(half);
  bench.require_refused(bench.options(), ErrorKind::usage, "several adapters: a, default");
}
