#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

namespace {

TensorMap stack(int layers) {
  TensorMap tensors;
  for (int i = 0; i < layers; ++i)
    for (const char* leaf : {"q", "v"})
      tensors["model.layers." + std::to_string(i) + "." + leaf + ".weight"] =
          normal_tensor(leaf + std::to_string(i), {5, 6});
  tensors["model.layers.0.q.bias"] = normal_tensor("bias", {5});
  tensors["head.weight"] = normal_tensor("head", {5, 6});
  tensors["lm_head.weight"] = normal_tensor("lm", {5, 6});
  return tensors;
}

TensorMap on_layers(std::initializer_list<int> layers) {
  TensorMap tensors;
  for (const int i : layers) add_pair(tensors, "model.layers." + std::to_string(i) + ".q", 4, 6, 5);
  return tensors;
}

}  // namespace

TEST_CASE("LV205: an entry that selects nothing is named, others are not") {
  VerifyCase sample;
  sample.set_base(stack(2));
  const VerifyReport report = sample.run(config_on({"q", "qkv"}), on_layers({0, 1}));
  require_rule(report, "LV205", Severity::warning, "1 of 2 target_modules entries");
  require_rule(report, "LV205", Severity::warning, "qkv");
  forbid_rule(sample.run(config_on({"q"}), on_layers({0, 1})), "LV205");
}

TEST_CASE("LV205: partial layers are a note where the configuration says so") {
  VerifyCase sample;
  sample.set_base(stack(4));
  AdapterConfig config = config_on({"q"});
  config.layers_to_transform = {0, 1, 3};
  const VerifyReport some = sample.run(config, on_layers({0, 1, 3}));
  require_rule(some, "LV205", Severity::note, "q adapted in layers 0-1,3 of 4");
  require_healthy(some);
  config.layers_to_transform = {0, 1, 3, 9};
  require_rule(sample.run(config, on_layers({0, 1, 3})), "LV205", Severity::warning,
               "layers that the base does not have: 9");
  config = sample_config();
  config.target_modules = std::string(".*[^13].q");
  require_rule(sample.run(config, on_layers({0, 2})), "LV205", Severity::note, "layers 0,2 of 4");
  config.target_modules = std::string("model.layers.[^y-zB-F].q");
  forbid_rule(sample.run(config, on_layers({0, 1, 2, 3})), "LV205");
}

TEST_CASE("LV206: a dead entry of modules_to_save, but not what PEFT adds for the task") {
  VerifyCase sample;
  sample.set_base(stack(1));
  AdapterConfig config = config_on({"q"});
  config.modules_to_save = {"heed"};
  require_rule(sample.run(config, on_layers({0})), "LV206", Severity::warning, "heed");
  config.task_type = "SEQ_CLS";
  config.modules_to_save = {"classifier", "score"};
  TensorMap tensors = on_layers({0});
  tensors["base_model.model.score.weight"] = normal_tensor("score", {2, 6});
  const VerifyReport report = sample.run(config, tensors);
  forbid_rule(report, "LV206");
  require_healthy(report);
}

TEST_CASE("LV209: head also captures lm_head") {
  VerifyCase sample;
  AdapterConfig config = config_on({"q"});
  config.modules_to_save = {"head"};
  TensorMap tensors = on_layers({0});
  tensors["base_model.model.head.weight"] = normal_tensor("head", {5, 6});
  forbid_rule(sample.run(config, tensors), "LV209");
  sample.set_base(stack(1));
  require_rule(sample.run(config, tensors), "LV209", Severity::warning, "captures lm_head");
  config.modules_to_save = {"lm_head"};
  tensors.erase("base_model.model.head.weight");
  tensors["base_model.model.lm_head.weight"] = normal_tensor("head", {5, 6});
  forbid_rule(sample.run(config, tensors), "LV209");
}

TEST_CASE("LV210: a classification task needs its head, other tasks do not") {
  VerifyCase sample;
  AdapterConfig config = config_on({"q"});
  config.task_type = "SEQ_CLS";
  config.modules_to_save = {"classifier", "score"};
  require_rule(sample.run(config, on_layers({0})), "LV210", Severity::error,
               "SEQ_CLS needs a head");
  TensorMap tensors = on_layers({0});
  tensors["base_model.model.score.weight"] = normal_tensor("score", {2, 6});
  forbid_rule(sample.run(config, tensors), "LV210");
  config = config_on({"q"});
  config.task_type = "CAUSAL_LM";
  forbid_rule(sample.run(config, on_layers({0})), "LV210");
  config.modules_to_save = {"embed_tokens"};
  require_rule(sample.run(config, on_layers({0})), "LV210", Severity::error, "embed_tokens");
}

TEST_CASE("LV211: lost biases are certain with a base, likely without one") {
  VerifyCase sample;
  AdapterConfig config = config_on({"q"});
  config.bias = BiasMode::lora_only;
  config.peft_version = "0.20.0";
  require_rule(sample.run(config, on_layers({0, 1})), "LV211", Severity::warning, "PEFT 0.20.0");
  config.peft_version = "0.21.2";
  forbid_rule(sample.run(config, on_layers({0, 1})), "LV211");
  sample.set_base(stack(2));
  require_rule(sample.run(config, on_layers({0, 1})), "LV211", Severity::error,
               "biases of 1 module are not in the file: model.layers.0.q");
  TensorMap tensors = on_layers({0, 1});
  tensors["base_model.model.model.layers.0.q.base_layer.bias"] = normal_tensor("b", {5});
  forbid_rule(sample.run(config, tensors), "LV211");
}

TEST_CASE("LV214: a head that an expression swept up is a warning, a named one a note") {
  VerifyCase sample;
  sample.set_base(stack(1));
  TensorMap tensors = on_layers({0});
  add_pair(tensors, "model.layers.0.v", 4, 6, 5);
  add_pair(tensors, "head", 4, 6, 5);
  add_pair(tensors, "lm_head", 4, 6, 5);
  AdapterConfig config = config_on({"model.layers.0.q", "model.layers.0.v", "head", "lm_head"});
  require_rule(sample.run(config, tensors), "LV214", Severity::warning, "lm_head without naming");
  config.target_modules = std::string(".*(q|v|head)");
  require_rule(sample.run(config, tensors), "LV214", Severity::warning, "swept up lm_head");
  tensors = on_layers({0});
  add_pair(tensors, "lm_head", 4, 6, 5);
  require_rule(sample.run(config_on({"q", "lm_head"}), tensors), "LV214", Severity::note,
               "names lm_head");
  forbid_rule(sample.run(config_on({"q"}), on_layers({0})), "LV214");
}
