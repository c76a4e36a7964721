#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

namespace {

const std::string kPrefix = "base_model.model.";

TensorMap attention() { return pairs({"attn", "attn.base_layer.out_proj"}, 4, 6, 6); }

AdapterConfig on_experts(const std::string& version) {
  AdapterConfig config;
  config.rank = 4;
  config.peft_version = version.empty() ? std::nullopt : std::optional(version);
  config.other["target_parameters"] = JsonArray{"experts.up"};
  return config;
}

// Two experts, rank 4: A [8, in], B [out, 8].
TensorMap experts(std::int64_t in, std::int64_t out) { return pairs({"experts"}, 8, in, out); }

}  // namespace

TEST_CASE("LV312: use_dora and magnitudes belong together") {
  VerifyCase sample;
  TensorMap tensors = sample_tensors();
  AdapterConfig config = sample_config();
  config.use_dora = true;
  tensors[kPrefix + "fc1.lora_magnitude_vector"] = normal_tensor("m", {20});
  require_rule(sample.run(config, tensors), "LV312", Severity::error,
               "1 of 2 modules have no lora_magnitude_vector: fc2");
  config.use_dora = false;
  require_rule(sample.run(config, tensors), "LV312", Severity::error, "use_dora is false");
  config.use_dora = true;
  tensors[kPrefix + "fc2.lora_magnitude_vector.weight"] = normal_tensor("m", {2});
  forbid_rule(sample.run(config, tensors), "LV312");
  forbid_rule(sample.run(sample_config(), sample_tensors()), "LV312");
}

TEST_CASE("LV313: the doubled projection is a note by a known version, else a warning") {
  VerifyCase sample;
  AdapterConfig config = config_on({"attn"});
  require_rule(sample.run(config, attention()), "LV313", Severity::note, "PEFT 0.21.2");
  std::string text = dump_adapter_config(config);
  text.replace(text.find("0.21.2"), 6, "0.99.0");
  require_rule(sample.run(text, attention()), "LV313", Severity::warning, "assuming factor");
  require_rule(
      sample.run(R"({"peft_type": "LORA", "r": 4, "target_modules": ["attn"]})", attention()),
      "LV313", Severity::warning, "no peft_version");
  forbid_rule(sample.run(sample_config(), sample_tensors()), "LV313");
}

TEST_CASE("LV314: experts are a note once decided, an error while nothing can tell") {
  VerifyCase sample;
  const std::string no_version =
      R"({"peft_type": "LORA", "r": 4, "target_parameters": ["experts.up"]})";
  const auto run = [&](const AdapterConfig& config, std::int64_t in, std::int64_t out) {
    return sample.run(config, experts(in, out));
  };
  require_rule(sample.run(no_version, experts(6, 6)), "LV314", Severity::error,
               "as many inputs as outputs, and no peft_version");
  require_rule(run(on_experts("0.21.2"), 6, 5), "LV314", Severity::note, "the base decides");
  require_rule(run(on_experts("0.18.0"), 6, 5), "LV314", Severity::note, "[experts, in, out]");
  sample.set_base({{"experts.up", normal_tensor("up", {2, 5, 6})}});
  require_rule(run(on_experts("0.21.2"), 6, 5), "LV314", Severity::note, "[experts, out, in]");
  forbid_rule(sample.run(sample_config(), sample_tensors()), "LV314");
}
