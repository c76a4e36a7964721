#include "lora/ops/trainable.h"

#include "lora/format/safetensors.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

std::vector<std::string> names_of(const std::vector<TrainableParameter>& parameters) {
  std::vector<std::string> names;
  for (const TrainableParameter& parameter : parameters) names.push_back(parameter.name);
  return names;
}

Adapter sample(AdapterConfig config, const TensorMap& more = {}) {
  TensorMap tensors = sample_tensors();
  tensors.insert(more.begin(), more.end());
  return make_adapter(std::move(config), std::move(tensors), "adapter");
}

const std::vector<std::string> kFactors{
    "base_model.model.fc1.lora_A.weight", "base_model.model.fc1.lora_B.weight",
    "base_model.model.fc2.lora_A.weight", "base_model.model.fc2.lora_B.weight"};

}  // namespace

TEST_CASE("factors train, in F32 whatever the file's dtype") {
  TempDir directory;
  const Checkpoint base = sample_base(directory / "base");
  const auto parameters = trainable_parameters(sample(sample_config()), base);
  REQUIRE(names_of(parameters) == kFactors);
  REQUIRE(parameters[0].shape == std::vector<std::int64_t>{4, 10});
  TensorMap half;
  for (const auto& [key, tensor] : sample_tensors()) half[key] = tensor.cast(DType::bf16);
  const auto widened = trainable_parameters(make_adapter(sample_config(), half, "a"), base);
  REQUIRE(widened[0].dtype == DType::f32);
}

TEST_CASE("biases train as the bias mode says, also those no file holds") {
  TempDir directory;
  const Checkpoint base = sample_base(directory / "base");
  AdapterConfig config = sample_config();
  config.bias = BiasMode::lora_only;
  const auto parameters = trainable_parameters(sample(config), base);
  REQUIRE(parameters.size() == 6);
  REQUIRE(parameters[0].name == "base_model.model.fc1.base_layer.bias");
  REQUIRE(!parameters[0].is_in_file);
  const auto held = trainable_parameters(
      sample(config, {{"base_model.model.fc1.base_layer.bias", normal_tensor("b", {20})}}), base);
  REQUIRE(held.size() == 6);
  REQUIRE(held[0].is_in_file);
}

TEST_CASE("saved modules train without their buffers, embeddings saved along do not") {
  TempDir directory;
  const Checkpoint base = sample_base(directory / "base");
  AdapterConfig config = sample_config();
  config.modules_to_save = {"norm"};
  const auto parameters = trainable_parameters(
      sample(config, {{"base_model.model.norm.weight", normal_tensor("w", {4})},
                      {"base_model.model.norm.running_mean", normal_tensor("m", {4})},
                      {"base_model.model.embed_tokens.weight", normal_tensor("e", {8, 4})}}),
      base);
  REQUIRE(parameters.size() == 5);
  REQUIRE(parameters.back().name == "base_model.model.norm.weight");
}

TEST_CASE("MiCA freezes B") {
  TempDir directory;
  const Checkpoint base = sample_base(directory / "base");
  AdapterConfig config = sample_config();
  config.init_lora_weights = "mica";
  REQUIRE(names_of(trainable_parameters(sample(config), base)) ==
          std::vector<std::string>{kFactors[0], kFactors[2]});
}
