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

TEST_CASE("LV307: an adapter name inside keys is a note") {
  VerifyCase sample;
  const VerifyReport report = sample.run(config_on({"q", "up"}), renamed([](std::string key) {
                                           return key.insert(key.rfind(".weight"), ".mine");
                                         }));
  require_rule(report, "LV307", Severity::note, "\"mine\"");
  forbid_rule(sample.run(config_on({"q", "up"}), clean()), "LV307");
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

TEST_CASE("LV310: single experts against fused parameters, and half a pair") {
  VerifyCase sample;
  sample.set_base({{"layers.0.mlp.experts.gate_up_proj", normal_tensor("g", {2, 10, 6})},
                   {"layers.0.mlp.experts.down_proj", normal_tensor("d", {2, 6, 5})},
                   {"layers.0.q.weight", normal_tensor("q", {5, 6})}});
  TensorMap tensors = pairs({"layers.0.mlp.experts.0.gate_proj", "layers.0.mlp.experts.0.up_proj",
                             "layers.0.mlp.experts.1.gate_proj"},
                            4, 6, 5);
  const VerifyReport report = sample.run(config_on({"gate_proj", "up_proj"}), tensors);
  require_rule(report, "LV310", Severity::error, "3 modules adapt single experts");
  require_rule(report, "LV310", Severity::error, "1 expert of a fused pair");
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
