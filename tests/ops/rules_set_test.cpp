#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

TEST_CASE("LV318: adapters in sub-directories that cannot share a model are named with the field") {
  VerifyCase sample;
  AdapterConfig config = sample_config();
  config.bias = BiasMode::all;
  config.modules_to_save = {"head"};
  const auto with_neighbour = [&](const AdapterConfig& other) {
    sample.run(config, sample_tensors());
    write_sample(sample.adapter() / "second", other, sample_tensors());
    return sample.again();
  };
  AdapterConfig other = config;
  require_rule(with_neighbour(other), "LV318", Severity::note, "with second: bias: both train");
  require_rule(with_neighbour(other), "LV318", Severity::note, "both replace head");
  other.bias = BiasMode::none;
  other.modules_to_save.clear();
  forbid_rule(with_neighbour(other), "LV318");
  other.other["kasa_config"] = JsonObject{{"beta", 0.1}};
  require_rule(with_neighbour(other), "LV318", Severity::note, "kasa_config");
}

TEST_CASE("LV318: checkpoints of the same run and broken neighbours are no set") {
  VerifyCase sample;
  AdapterConfig config = sample_config();
  config.bias = BiasMode::all;
  sample.run(config, sample_tensors());
  write_sample(sample.adapter() / "checkpoint-10", config, sample_tensors());
  write_sample(sample.adapter() / "broken", config, sample_tensors());
  write_file(sample.adapter() / "broken" / kAdapterConfigName, "{");
  forbid_rule(sample.again(), "LV318");
}
