// A configuration against the adapter's own tensors, without a base.
#include <set>

#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

namespace {

using Leaves = std::initializer_list<const char*>;

std::string module(int layer, const std::string& leaf) {
  return "model.layers." + std::to_string(layer) + ".self_attn." + leaf;
}

TensorMap stack(int layers, Leaves leaves) {
  TensorMap tensors;
  for (int i = 0; i < layers; ++i)
    for (const char* leaf : leaves) add_pair(tensors, module(i, leaf), 4, 6, 5);
  return tensors;
}

void drop(TensorMap& tensors, const std::string& path) {
  std::erase_if(tensors, [&](const auto& entry) {
    return entry.first.find("." + path + ".") != std::string::npos;
  });
}

AdapterConfig q_and_v() { return config_on({"q_proj", "v_proj"}); }

}  // namespace

TEST_CASE("LV301: without a base, tensors that the configuration does not select are named") {
  VerifyCase sample;
  const TensorMap tensors = stack(4, {"q_proj", "v_proj"});
  require_healthy(sample.run(q_and_v(), tensors));
  const auto refuse = [&](const AdapterConfig& config, std::string_view part) {
    require_rule(sample.run(config, tensors), "LV301", Severity::error, part);
  };
  AdapterConfig config = q_and_v();
  config.layers_to_transform = {3};
  refuse(config, "6 sites that the configuration does not explain");
  refuse(config, "model.layers.0-2.self_attn.q_proj (not targeted: layers_to_transform is 3)");
  config.layers_to_transform = {0, 1};
  refuse(config, "model.layers.2-3.self_attn.v_proj (not targeted: layers_to_transform is 0-1)");
  config = q_and_v();
  config.exclude_modules = std::vector<std::string>{"v_proj"};
  refuse(config, "model.layers.0-3.self_attn.v_proj (not targeted: exclude_modules takes it out)");
  config.exclude_modules = std::string(".*v_proj");
  refuse(config, "exclude_modules takes it out");
  config = q_and_v();
  config.target_modules = std::string(".*q_proj");
  refuse(config, "4 sites");
  refuse(config, "v_proj (not targeted: target_modules does not select it)");
  config.target_modules = std::vector<std::string>{"q_proj"};
  refuse(config, "v_proj (not targeted: target_modules does not select it)");
  config.target_modules = std::vector<std::string>{"proj"};
  refuse(config, "8 sites");
  config.target_modules = std::vector<std::string>{};
  refuse(config, "target_modules is empty");
}

TEST_CASE("LV301: what a base alone can tell is no finding without one") {
  VerifyCase sample;
  const TensorMap tensors = stack(4, {"q_proj", "v_proj"});
  AdapterConfig config = q_and_v();
  config.target_modules = std::string("all-linear");
  require_healthy(sample.run(config, tensors));
  config.target_modules = {};
  require_healthy(sample.run(config, tensors));
  config = q_and_v();
  config.layers_to_transform = {0, 1, 2, 3, 9};
  require_healthy(sample.run(config, tensors));
  config = q_and_v();
  config.target_modules = std::string("model\\.layers\\.\\d+\\.self_attn\\.[qv]_proj");
  require_healthy(sample.run(config, tensors));
}

TEST_CASE("LV301: with a base the field that takes a module out is named, and no other rule errs") {
  VerifyCase sample;
  TensorMap base;
  for (int i = 0; i < 4; ++i)
    for (const char* leaf : {"q_proj", "v_proj"})
      base[module(i, leaf) + ".weight"] = normal_tensor(leaf + std::to_string(i), {5, 6});
  sample.set_base(base);
  const TensorMap tensors = stack(4, {"q_proj", "v_proj"});
  AdapterConfig config = q_and_v();
  config.exclude_modules = std::vector<std::string>{"v_proj"};
  VerifyReport report = sample.run(config, tensors);
  require_rule(report, "LV301", Severity::error, "exclude_modules takes it out");
  require_rule(report, "LV205", Severity::warning,
               "1 of 2 target_modules entries select nothing (exclude_modules takes it out): "
               "v_proj");
  REQUIRE(find_rule(report, "LV205")->message.find("match no module") == std::string::npos);
  config = q_and_v();
  config.layers_to_transform = {0, 1};
  report = sample.run(config, tensors);
  require_rule(report, "LV301", Severity::error, "layers_to_transform is 0-1");
  forbid_rule(report, "LV510");
  config.layers_to_transform = {0, 1, 2, 3};
  report = sample.run(config, stack(2, {"q_proj", "v_proj"}));
  require_rule(report, "LV302", Severity::error, "4 of 8");
  forbid_rule(report, "LV510");
  // Without any of these fields the number of layers speaks of the base.
  require_rule(sample.run(q_and_v(), stack(6, {"q_proj", "v_proj"})), "LV510", Severity::error,
               "covers 6 layers");
}

TEST_CASE("LV302: without a base, a module that all other layers have is missed") {
  VerifyCase sample;
  TensorMap tensors = stack(30, {"q_proj", "v_proj"});
  drop(tensors, module(17, "q_proj"));
  require_rule(sample.run(q_and_v(), tensors), "LV302", Severity::warning,
               "1 module has no tensors, which the configuration selects and whose siblings in the "
               "other layers have: model.layers.17.self_attn.q_proj");
  drop(tensors, module(0, "v_proj"));
  require_rule(sample.run(q_and_v(), tensors), "LV302", Severity::warning, "2 modules have");
  tensors = stack(30, {"q_proj", "v_proj"});
  drop(tensors, module(4, "q_proj"));
  drop(tensors, module(4, "v_proj"));
  require_rule(sample.run(q_and_v(), tensors), "LV302", Severity::warning,
               "model.layers.4.self_attn.q_proj, model.layers.4.self_attn.v_proj");
  tensors = stack(6, {"q_proj"});
  drop(tensors, module(3, "q_proj"));
  require_rule(sample.run(config_on({"q_proj"}), tensors), "LV302", Severity::warning,
               "model.layers.3.self_attn.q_proj");
}

TEST_CASE("LV302: gaps that the configuration explains are none") {
  VerifyCase sample;
  TensorMap tensors = stack(30, {"q_proj", "v_proj"});
  drop(tensors, module(17, "q_proj"));
  AdapterConfig config = q_and_v();
  config.exclude_modules = std::string("model.layers.17.self_attn.q_proj");
  require_healthy(sample.run(config, tensors));
  config = q_and_v();
  config.target_modules = std::string("model\\.layers\\.(?!17\\.self_attn\\.q_).*");
  require_healthy(sample.run(config, tensors));
  tensors = stack(30, {"q_proj", "v_proj"});
  drop(tensors, module(17, "q_proj"));
  drop(tensors, module(17, "v_proj"));
  config = q_and_v();
  for (int i = 0; i < 30; ++i)
    if (i != 17) config.layers_to_transform.push_back(i);
  require_healthy(sample.run(config, tensors));
}

TEST_CASE("LV302: models whose layers differ have no gaps") {
  VerifyCase sample;
  const auto none = [&](const TensorMap& tensors, const std::vector<std::string>& targets) {
    forbid_rule(sample.run(config_on(targets), tensors), "LV302");
  };
  const auto layer = [](int i, const std::string& rest) {
    return "model.layers." + std::to_string(i) + "." + rest;
  };
  // A dense first layer, then experts.
  TensorMap tensors;
  for (int i = 0; i < 20; ++i) {
    add_pair(tensors, layer(i, "self_attn.q_proj"), 4, 6, 5);
    add_pair(tensors, layer(i, i == 0 ? "mlp.gate_proj" : "mlp.shared.gate_proj"), 4, 6, 5);
  }
  none(tensors, {"q_proj", "gate_proj"});
  // The same where the dense layer has nothing else that is targeted.
  tensors.clear();
  for (int i = 0; i < 20; ++i) {
    add_pair(tensors, layer(i, "self_attn.q_proj"), 4, 6, 5);
    if (i != 0) add_pair(tensors, layer(i, "mlp.shared.up_proj"), 4, 6, 5);
  }
  none(tensors, {"q_proj", "up_proj"});
  // One attention layer among mixers of another class.
  tensors.clear();
  for (int i = 0; i < 32; ++i)
    add_pair(tensors, layer(i, i % 8 == 4 ? "attn.q_proj" : "mamba.in_proj"), 4, 6, 5);
  none(tensors, {"q_proj", "in_proj"});
  // Every sixth layer shares keys and values.
  tensors.clear();
  for (int i = 0; i < 30; ++i) {
    add_pair(tensors, layer(i, "self_attn.q_proj"), 4, 6, 5);
    if (i % 6 != 5) add_pair(tensors, layer(i, "self_attn.v_proj"), 4, 6, 5);
  }
  none(tensors, {"q_proj", "v_proj"});
  // The last layers have no keys of their own.
  tensors.clear();
  for (int i = 0; i < 30; ++i) {
    add_pair(tensors, layer(i, "self_attn.q_proj"), 4, 6, 5);
    if (i < 20) add_pair(tensors, layer(i, "self_attn.k_proj"), 4, 6, 5);
  }
  none(tensors, {"q_proj", "k_proj"});
  // Encoder and decoder of different depth.
  tensors.clear();
  for (int i = 0; i < 12; ++i)
    add_pair(tensors, "encoder.block." + std::to_string(i) + ".q", 4, 6, 5);
  for (int i = 0; i < 4; ++i) {
    add_pair(tensors, "decoder.block." + std::to_string(i) + ".q", 4, 6, 5);
    add_pair(tensors, "decoder.block." + std::to_string(i) + ".cross.q", 4, 6, 5);
  }
  none(tensors, {"q"});
  // A sequence of modules is no stack of layers.
  tensors.clear();
  for (const int i : {0, 1, 2, 3, 5, 6, 7})
    add_pair(tensors, "features." + std::to_string(i), 4, 6, 5);
  none(tensors, {"0", "1", "2", "3", "4", "5", "6", "7"});
  // Cut at the end: nothing says how deep the model is.
  none(stack(7, {"q_proj"}), {"q_proj"});
}

TEST_CASE("LV302: one expert of a layer, and other layers, are siblings too") {
  VerifyCase sample;
  TensorMap tensors;
  const auto expert = [](int layer, int number, const std::string& leaf) {
    return "model.layers." + std::to_string(layer) + ".mlp.experts." + std::to_string(number) +
           "." + leaf;
  };
  for (int i = 0; i < 4; ++i)
    for (int e = 0; e < 8; ++e)
      for (const char* leaf : {"up_proj", "down_proj"})
        add_pair(tensors, expert(i, e, leaf), 4, 6, 5);
  const AdapterConfig config = config_on({"up_proj", "down_proj"});
  forbid_rule(sample.run(config, tensors), "LV302");
  drop(tensors, expert(2, 5, "up_proj"));
  require_rule(sample.run(config, tensors), "LV302", Severity::warning,
               "model.layers.2.mlp.experts.5.up_proj");
}

TEST_CASE("LV319: lora_bias and the biases of lora_B belong together") {
  VerifyCase sample;
  TensorMap tensors = sample_tensors();
  AdapterConfig config = sample_config();
  config.lora_bias = true;
  tensors["base_model.model.fc1.lora_B.bias"] = normal_tensor("b", {20});
  require_rule(sample.run(config, tensors), "LV319", Severity::error,
               "1 of 2 modules have no lora_B.bias, for which PEFT takes zeros: fc2");
  config.lora_bias = false;
  require_rule(sample.run(config, tensors), "LV319", Severity::error,
               "1 module has a lora_B.bias and lora_bias is false");
  config.lora_bias = true;
  tensors["base_model.model.fc2.lora_B.bias"] = normal_tensor("b", {2});
  require_healthy(sample.run(config, tensors));
  require_healthy(sample.run(sample_config(), sample_tensors()));
}
