#include "support/safetensors_bytes.h"
#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

namespace {

TensorMap toy_base() {
  return {{"fc1.weight", normal_tensor("fc1", {20, 10})},
          {"fc2.weight", normal_tensor("fc2", {2, 20})},
          {"embed_tokens.weight", normal_tensor("e", {50, 10})}};
}

}  // namespace

TEST_CASE("LV102: a pickle is a warning, one beside safetensors a note, neither nothing") {
  VerifyCase sample;
  const VerifyReport clean = sample.run(sample_config(), sample_tensors());
  forbid_rule(clean, "LV102");
  write_file(sample.adapter() / kAdapterPickleName, "anything");
  require_rule(sample.again(), "LV102", Severity::note, "adapter_model.safetensors; the latter");
  VerifyOptions options;
  options.adapter =
      std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/adapter/adapters/mlp_bin";
  require_rule(verify(options), "LV102", Severity::warning, "pickle container");
}

TEST_CASE("LV103: weights without tensors are an empty adapter, not a damaged file") {
  VerifyCase sample;
  sample.run(sample_config(), sample_tensors());
  write_file(sample.adapter() / kAdapterWeightsName, safetensors_bytes("{}"));
  const VerifyReport report = sample.again();
  REQUIRE(!report.is_readable);
  require_rule(report, "LV103", Severity::error, "no tensor");
  forbid_rule(report, "LV101");
}

TEST_CASE("LV103: token rows alone are something") {
  VerifyCase sample;
  AdapterConfig config = config_on({"fc1"});
  config.other["trainable_token_indices"] = JsonArray{1, 2};
  TensorMap tensors;
  tensors["base_model.model.embed_tokens.token_adapter.trainable_tokens_delta"] =
      normal_tensor("t", {2, 10});
  forbid_rule(sample.run(config, tensors), "LV103");
  TensorMap halves;
  halves["base_model.model.fc1.lora_A.weight"] = normal_tensor("a", {4, 10});
  require_rule(sample.run(config_on({"fc1"}), halves), "LV103", Severity::error, "none of the 1");
}

TEST_CASE("LV104: tensors without elements are counted, and not called unpaired") {
  VerifyCase sample;
  TensorMap tensors = sample_tensors();
  tensors["base_model.model.fc1.lora_B.weight"] = Tensor::from_f32({0}, {});
  const VerifyReport report = sample.run(sample_config(), tensors);
  require_rule(report, "LV104", Severity::error, "1 of 4 tensors have no elements");
  forbid_rule(report, "LV303");
  forbid_rule(sample.run(sample_config(), sample_tensors()), "LV104");
}

TEST_CASE("LV105: a copy of the base's embedding nobody asked for is a warning") {
  VerifyCase sample;
  sample.set_base(toy_base());
  TensorMap tensors = sample_tensors();
  tensors["base_model.model.embed_tokens.weight"] = toy_base().at("embed_tokens.weight");
  require_rule(sample.run(sample_config(), tensors), "LV105", Severity::warning,
               "bit for bit those of the base");
  // PEFT adds it where the embedding is a target; trained values are no copy.
  AdapterConfig config = config_on({"fc1", "fc2", "embed_tokens"});
  require_rule(sample.run(config, tensors), "LV105", Severity::note, "% of the weights");
  tensors["base_model.model.embed_tokens.weight"] = normal_tensor("other", {50, 10});
  require_rule(sample.run(sample_config(), tensors), "LV105", Severity::note, "differ");
  config = sample_config();
  config.modules_to_save = {"embed_tokens"};
  forbid_rule(sample.run(config, tensors), "LV105");
}

TEST_CASE("LV106: an f32 adapter on a bf16 base and mixed dtypes are notes") {
  VerifyCase sample;
  TensorMap narrow;
  for (const auto& [name, tensor] : toy_base()) narrow[name] = tensor.cast(DType::bf16);
  sample.set_base(narrow);
  require_rule(sample.run(sample_config(), sample_tensors()), "LV106", Severity::note,
               "F32 adapter on a BF16 base");
  TensorMap tensors;
  for (const auto& [name, tensor] : sample_tensors()) tensors[name] = tensor.cast(DType::bf16);
  forbid_rule(sample.run(sample_config(), tensors), "LV106");
  tensors.begin()->second = tensors.begin()->second.cast(DType::f32);
  require_rule(sample.run(sample_config(), tensors), "LV106", Severity::note, "several dtypes");
}
