#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

namespace {

AdapterConfig replicated(JsonArray blocks) {
  AdapterConfig config = config_on({"fc1"});
  config.other["layer_replication"] = std::move(blocks);
  return config;
}

TensorMap stack(int layers) {
  TensorMap tensors;
  for (int i = 0; i < layers; ++i)
    tensors["model.layers." + std::to_string(i) + ".fc1.weight"] = normal_tensor("w", {20, 10});
  return tensors;
}

}  // namespace

TEST_CASE("LV213: a flag that the base's layers contradict is a note") {
  VerifyCase sample;
  sample.set_preset("tiny-gpt2");
  TensorMap tensors;
  for (const char* layer : {"0", "1"})
    add_pair(tensors, std::string("transformer.h.") + layer + ".attn.c_attn", 4, 64, 192);
  AdapterConfig config = config_on({"c_attn"});
  config.fan_in_fan_out = false;
  const VerifyReport report = sample.run(config, tensors);
  require_rule(report, "LV213", Severity::note, "fan_in_fan_out is false and 2 modules");
  require_healthy(report);
  config.fan_in_fan_out = true;
  forbid_rule(sample.run(config, tensors), "LV213");
}

TEST_CASE("LV215: running statistics that are not saved are a warning") {
  VerifyCase sample;
  TensorMap base{{"fc1.weight", normal_tensor("fc1", {20, 10})},
                 {"bn.weight", normal_tensor("bn", {20})},
                 {"bn.running_mean", normal_tensor("m", {20})},
                 {"bn.running_var", normal_tensor("v", {20})}};
  sample.set_base(base);
  TensorMap tensors = pairs({"fc1"}, 4, 10, 20);
  require_rule(sample.run(config_on({"fc1"}), tensors), "LV215", Severity::warning,
               "1 batch-norm layer");
  AdapterConfig config = config_on({"fc1"});
  config.modules_to_save = {"bn"};
  for (const char* name : {"weight", "running_mean", "running_var"})
    tensors["base_model.model.bn." + std::string(name)] = normal_tensor(name, {20});
  forbid_rule(sample.run(config, tensors), "LV215");
}

TEST_CASE("LV216: replicated layers are a note, blocks outside the base an error") {
  VerifyCase sample;
  sample.set_base(stack(2));
  const TensorMap tensors = pairs({"model.layers.0.fc1", "model.layers.1.fc1"}, 4, 10, 20);
  require_rule(sample.run(replicated({JsonArray{0, 2}, JsonArray{1, 2}}), tensors), "LV216",
               Severity::note, "a stack of 3 layers from 2");
  require_rule(sample.run(replicated({JsonArray{0, 3}}), tensors), "LV216", Severity::error,
               "does not have");
  forbid_rule(sample.run(config_on({"fc1"}), tensors), "LV216");
}
