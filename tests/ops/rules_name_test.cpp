#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

namespace {

const std::string kPrefix = "base_model.model.";

TensorMap stack(const std::string& front) {
  TensorMap tensors;
  for (const char* layer : {"0", "1"})
    for (const char* leaf : {"q", "up"})
      tensors[front + "layers." + layer + "." + leaf + ".weight"] = normal_tensor(layer, {5, 6});
  return tensors;
}

template <typename Rename>
TensorMap renamed(Rename rename) {
  TensorMap tensors;
  for (const auto& [key, tensor] :
       pairs({"layers.0.q", "layers.0.up", "layers.1.q", "layers.1.up"}, 4, 6, 5))
    tensors[rename(key)] = tensor;
  return tensors;
}

TensorMap clean() {
  return renamed([](const std::string& key) { return key; });
}

}  // namespace

TEST_CASE("LV305: wrappers everywhere or in some keys") {
  VerifyCase sample;
  const AdapterConfig config = config_on({"q", "up"});
  require_rule(sample.run(config, renamed([](const std::string& key) {
                            return kPrefix + "_orig_mod." + key.substr(kPrefix.size());
                          })),
               "LV305", Severity::error, "all 8 keys carry wrapper components (_orig_mod.)");
  require_rule(sample.run(config, renamed([](const std::string& key) {
                            return key.find(".0.q.") == std::string::npos ? key : "module." + key;
                          })),
               "LV305", Severity::error, "2 of 8 keys");
  forbid_rule(sample.run(config, clean()), "LV305");
}

TEST_CASE("LV305: inner is a wrapper only where the base says so") {
  VerifyCase sample;
  const AdapterConfig config = config_on({"q", "up"});
  const TensorMap inner = renamed(
      [](const std::string& key) { return kPrefix + "inner." + key.substr(kPrefix.size()); });
  forbid_rule(sample.run(config, inner), "LV305");
  sample.set_base(stack(""));
  require_rule(sample.run(config, inner), "LV305", Severity::error,
               "4 modules of the file are in the base without the component inner.");
  sample.set_base(stack("inner."));
  require_healthy(sample.run(config, inner));
}

TEST_CASE("LV306: foreign, doubled and absent prefixes, with what resolves without them") {
  VerifyCase sample;
  const AdapterConfig config = config_on({"q", "up"});
  sample.set_base(stack(""));
  require_rule(sample.run(config, renamed([](const std::string& key) { return "thinker." + key; })),
               "LV306", Severity::error, "all 8 keys carry the foreign prefix thinker.");
  require_rule(sample.run(config, renamed([](const std::string& key) { return "thinker." + key; })),
               "LV306", Severity::error, "without it 8 of them resolve in the base");
  require_rule(sample.run(config, renamed([](const std::string& key) { return kPrefix + key; })),
               "LV306", Severity::error, "base_model.model. twice");
  const VerifyReport bare = sample.run(
      config, renamed([](const std::string& key) { return key.substr(kPrefix.size()); }));
  require_rule(bare, "LV306", Severity::error, "all 8 keys lack the prefix");
  require_rule(bare, "LV306", Severity::error, "4 of 4 modules are in the base as they stand");
  const VerifyReport foreign = sample.run(
      config, renamed([](const std::string& key) { return "net." + key.substr(kPrefix.size()); }));
  require_rule(foreign, "LV306", Severity::error, "4 more by renaming: net.* -> * (4 modules)");
  forbid_rule(sample.run(config, clean()), "LV306");
}

namespace {

std::string with_name(std::string key, const std::string& name) {
  return key.insert(key.rfind(".weight"), "." + name);
}

bool is_first_layer(const std::string& key) { return key.find(".0.") != std::string::npos; }

}  // namespace

TEST_CASE("LV307: a name inside keys is an error where PEFT looks for another, else a note") {
  VerifyCase sample;
  const AdapterConfig config = config_on({"q", "up"});
  const VerifyReport mine =
      sample.run(config, renamed([](const std::string& key) { return with_name(key, "mine"); }));
  require_rule(mine, "LV307", Severity::error, "all 8 keys still carry the adapter name \"mine\"");
  require_rule(mine, "LV307", Severity::error, "does not load these tensors");
  const VerifyReport live =
      sample.run(config, renamed([](const std::string& key) { return with_name(key, "default"); }));
  require_rule(live, "LV307", Severity::note, "\"default\"");
  require_healthy(live);
  require_healthy(sample.run(config, renamed([](const std::string& key) {
                               return is_first_layer(key) ? with_name(key, "default") : key;
                             })));
  forbid_rule(sample.run(config, clean()), "LV307");
}

TEST_CASE("LV307: parts that PEFT renames on loading may carry no name at all") {
  VerifyCase sample;
  AdapterConfig config = config_on({"q", "up"});
  config.use_dora = true;
  const auto with_magnitudes = [](const std::string& end) {
    TensorMap tensors = clean();
    for (const char* path : {"layers.0.q", "layers.0.up", "layers.1.q", "layers.1.up"})
      tensors[kPrefix + path + ".lora_magnitude_vector" + end] = normal_tensor("m", {5});
    return tensors;
  };
  require_rule(sample.run(config, with_magnitudes(".default")), "LV307", Severity::error,
               "4 of 12 keys");
  require_rule(sample.run(config, with_magnitudes(".default.weight")), "LV307", Severity::note,
               "4 of 12 keys");
  forbid_rule(sample.run(config, with_magnitudes("")), "LV307");
}

TEST_CASE("LV307: the second name of a saved bias is PEFT's own, of a saved weight it is not") {
  VerifyCase sample;
  AdapterConfig config = config_on({"q", "up"});
  config.modules_to_save = {"head"};
  const auto with_second_name = [](const std::string& parameter) {
    TensorMap tensors = clean();
    tensors[kPrefix + "head.dense." + parameter] = normal_tensor("head", {5, 6});
    tensors[kPrefix + "head.modules_to_save.default.dense." + parameter] =
        tensors.at(kPrefix + "head.dense." + parameter);
    return tensors;
  };
  config.bias = BiasMode::all;
  forbid_rule(sample.run(config, with_second_name("bias")), "LV307");
  require_rule(sample.run(config, with_second_name("weight")), "LV307", Severity::error,
               "still carry");
  config.bias = BiasMode::none;
  require_rule(sample.run(config, with_second_name("bias")), "LV307", Severity::error,
               "still carry");
}

TEST_CASE("LV307: several adapters in one file are named, and nothing else is said about them") {
  VerifyCase sample;
  sample.set_base(stack(""));
  const AdapterConfig config = config_on({"q", "up"});
  TensorMap both = clean();
  for (const auto& [key, tensor] : clean())
    both[with_name(key, "mine")] = normal_tensor(key, tensor.shape);
  const VerifyReport report = sample.run(config, both);
  const Finding finding =
      require_rule(report, "LV307", "2 adapters, \"default\", \"mine\" (8 tensors), and PeftModel");
  REQUIRE(finding.hint.find("--adapter-name") != std::string::npos);
  REQUIRE(count_of(report.findings, Severity::error) == 1);
  // Neither is the one that PEFT looks for, and neither is complete.
  const VerifyReport split = sample.run(config, renamed([](const std::string& key) {
                                          return with_name(key, is_first_layer(key) ? "a" : "b");
                                        }));
  require_rule(split, "LV307", Severity::error, "\"a\", \"b\" (4 tensors)");
  require_rule(split, "LV307", Severity::error, "loads none of them");
  REQUIRE(count_of(split.findings, Severity::error) == 1);
}

TEST_CASE("LV304, LV305: second names are counted once, and the hint is a verb that works") {
  VerifyCase sample;
  const AdapterConfig config = config_on({"q", "up"});
  const auto doubled = [](double scale) {
    TensorMap tensors = clean();
    for (const auto& [key, tensor] : clean()) {
      tensors["module." + key] = tensor;
      if (scale != 1) tensors["module." + key] = normal_tensor(key, tensor.shape, scale);
    }
    return tensors;
  };
  const VerifyReport different = sample.run(config, doubled(2));
  require_rule(different, "LV305", Severity::error, "8 of 16 keys");
  require_rule(different, "LV304", Severity::error, "8 second names");
  REQUIRE(find_rule(different, "LV304")->hint.find("remove the stale tensor") == 0);
  const VerifyReport equal = sample.run(config, doubled(1));
  REQUIRE(find_rule(equal, "LV304")->hint.find("lora repair") != std::string::npos);
}

TEST_CASE("LV310: a renamed tree is recognised with its rule and counts before and after") {
  VerifyCase sample;
  const AdapterConfig config = config_on({"q", "up"});
  sample.set_base(stack("language_model."));
  const VerifyReport report = sample.run(config, clean());
  require_rule(report, "LV310", Severity::error,
               "0 of 4 modules are in the base under their name, 4 after renaming * -> "
               "language_model.* (4 modules)");
  sample.set_base(stack(""));
  forbid_rule(sample.run(config, clean()), "LV310");
}

TEST_CASE("LV310: what may be several modules is called ambiguous") {
  VerifyCase sample;
  TensorMap base = stack("text.");
  for (const auto& [name, tensor] : stack("vision.")) base[name] = tensor;
  sample.set_base(base);
  require_rule(sample.run(config_on({"q", "up"}), clean()), "LV310", Severity::error,
               "4 ambiguous: layers.0.q may be text.layers.0.q, vision.layers.0.q");
}

namespace {

const std::string kExperts = "layers.0.mlp.experts.";

/// Two experts, 6 inputs, 5 inner features, fused as transformers 5 holds them.
TensorMap fused_base() {
  return {{kExperts + "gate_up_proj", normal_tensor("g", {2, 10, 6})},
          {kExperts + "down_proj", normal_tensor("d", {2, 6, 5})},
          {"layers.0.q.weight", normal_tensor("q", {5, 6})}};
}

TensorMap single_base() {
  TensorMap tensors{{"layers.0.q.weight", normal_tensor("q", {5, 6})}};
  for (const char* expert : {"0.", "1."}) {
    for (const char* leaf : {"gate_proj.weight", "up_proj.weight"})
      tensors[kExperts + expert + leaf] = normal_tensor(leaf, {5, 6});
    tensors[kExperts + expert + "down_proj.weight"] = normal_tensor(expert, {6, 5});
  }
  return tensors;
}

TensorMap single_experts(const std::string& stack, std::initializer_list<std::string> wide,
                         std::initializer_list<std::string> down) {
  TensorMap tensors;
  for (const std::string& path : wide) add_pair(tensors, stack + path, 4, 6, 5);
  for (const std::string& path : down) add_pair(tensors, stack + path, 4, 5, 6);
  return tensors;
}

AdapterConfig expert_parameters() {
  AdapterConfig config = config_on({});
  config.other["target_parameters"] = JsonArray{"experts.gate_up_proj", "experts.down_proj"};
  return config;
}

/// Factors of rank 4 on both stacks of two experts, as PEFT nests them.
TensorMap expert_stacks() {
  TensorMap tensors;
  add_pair(tensors, kExperts + "base_layer", 8, 6, 10);
  add_pair(tensors, kExperts.substr(0, kExperts.size() - 1), 8, 5, 6);
  return tensors;
}

}  // namespace

TEST_CASE("LV310: single experts map to the fused parameters of the base") {
  VerifyCase sample;
  sample.set_base(fused_base());
  const AdapterConfig config = config_on({"gate_proj", "up_proj", "down_proj"});
  const TensorMap whole = single_experts(
      kExperts, {"0.gate_proj", "0.up_proj", "1.gate_proj", "1.up_proj"}, {"0.down_proj"});
  require_rule(sample.run(config, whole), "LV310", Severity::error,
               "5 modules adapt single experts (layers.0.mlp.experts.0.down_proj, ");
  require_rule(sample.run(config, whole), "LV310", Severity::error,
               "5 of them map to layers.0.mlp.experts.down_proj (down projections), "
               "layers.0.mlp.experts.gate_up_proj (gate and up projections)");
  // Mixtral: the stack was called block_sparse_moe.experts and its parts w1, w2, w3.
  const TensorMap old = single_experts("layers.0.block_sparse_moe.experts.",
                                       {"0.w1", "0.w3", "1.w1", "1.w3"}, {"0.w2", "1.w2"});
  require_rule(sample.run(config_on({"w1", "w2", "w3"}), old), "LV310", Severity::error,
               "6 of them map to layers.0.mlp.experts.down_proj");
  sample.set_base(single_base());
  forbid_rule(sample.run(config, whole), "LV310");
}

TEST_CASE("LV310: experts that have no place in a fused parameter are said to have none") {
  VerifyCase sample;
  sample.set_base(fused_base());
  const AdapterConfig config = config_on({"gate_proj", "up_proj", "down_proj"});
  const VerifyReport half =
      sample.run(config, single_experts(kExperts, {"0.gate_proj", "0.up_proj", "1.gate_proj"}, {}));
  require_rule(half, "LV310", Severity::error, "3 modules adapt single experts");
  require_rule(half, "LV310", Severity::error, "2 of them map");
  require_rule(half, "LV310", Severity::error, "1 expert of a fused pair");
  require_rule(sample.run(config, single_experts(kExperts, {}, {"0.down_proj", "2.down_proj"})),
               "LV310", Severity::error,
               "without a place: layers.0.mlp.experts.2.down_proj (the base has 2 experts)");
  TensorMap wide;
  add_pair(wide, kExperts + "0.down_proj", 4, 7, 6);
  require_rule(sample.run(config, wide), "LV310", Severity::error,
               "(update [6, 7], the stack [2, 6, 5])");
  forbid_rule(sample.run(config_on({"q"}), pairs({"layers.0.q"}, 4, 6, 5)), "LV310");
}

TEST_CASE("LV310: stacks of experts map to the single experts of the base") {
  VerifyCase sample;
  sample.set_base(single_base());
  require_rule(sample.run(expert_parameters(), expert_stacks()), "LV310", Severity::error,
               "2 modules adapt stacks of experts");
  require_rule(sample.run(expert_parameters(), expert_stacks()), "LV310", Severity::error,
               "2 of them map to layers.0.mlp.experts.0-1 down projections, "
               "layers.0.mlp.experts.0-1 gate and up projections");
  TensorMap other = expert_stacks();
  add_pair(other, kExperts + "base_layer", 8, 6, 12);
  require_rule(sample.run(expert_parameters(), other), "LV310", Severity::error,
               "1 of them map to layers.0.mlp.experts.0-1 down projections; without a place: "
               "layers.0.mlp.experts.base_layer");
  sample.set_base(fused_base());
  forbid_rule(sample.run(expert_parameters(), expert_stacks()), "LV310");
}

TEST_CASE("LV311: names that older PEFT takes apart wrongly") {
  VerifyCase sample;
  AdapterConfig config = config_on({"weight"});
  const TensorMap tensors = pairs({"layers.0.weight"}, 4, 6, 5);
  config.peft_version = "0.19.0";
  require_rule(sample.run(config, tensors), "LV311", Severity::warning, "1 module");
  config.peft_version = "0.21.2";
  const VerifyReport recent = sample.run(config, tensors);
  require_rule(recent, "LV311", Severity::note, "0.20.0");
  require_healthy(recent);
  require_rule(sample.run(config_on({"q", "up"}), renamed([](std::string key) {
                            return key.insert(key.rfind(".weight"), ".lora");
                          })),
               "LV311", Severity::warning, "part of lora_");
  forbid_rule(sample.run(config_on({"q", "up"}), clean()), "LV311");
}
