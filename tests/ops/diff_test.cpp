#include "lora/ops/diff.h"

#include "lora/format/safetensors.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

Adapter adapter_with(AdapterConfig config, TensorMap tensors) {
  return make_adapter(std::move(config), std::move(tensors), "adapter");
}

Checkpoint checkpoint_of(TensorMap tensors) {
  Checkpoint checkpoint;
  checkpoint.tensors = std::move(tensors);
  return checkpoint;
}

}  // namespace

TEST_CASE("an adapter equals itself") {
  const Adapter adapter = adapter_with(sample_config(), sample_tensors());
  const AdapterDiff result = diff(adapter, adapter, {});
  REQUIRE(result.is_equal());
  REQUIRE(result.total_difference == 0);
  REQUIRE(result.modules.size() == 2);
}

TEST_CASE("the order of set-valued fields is no difference") {
  AdapterConfig other = sample_config();
  other.target_modules = std::vector<std::string>{"fc2", "fc1"};
  REQUIRE(diff(adapter_with(sample_config(), sample_tensors()),
               adapter_with(other, sample_tensors()), {})
              .is_equal());
}

TEST_CASE("another alpha is a field and a scaled update") {
  AdapterConfig other = sample_config();
  other.alpha = 16;
  const AdapterDiff result = diff(adapter_with(sample_config(), sample_tensors()),
                                  adapter_with(other, sample_tensors()), {});
  REQUIRE(!result.is_equal());
  REQUIRE(result.fields.size() == 1);
  REQUIRE(result.fields[0].field == "lora_alpha");
  REQUIRE(result.fields[0].a == "8");
  REQUIRE(result.fields[0].b == "16");
  for (const ModuleDifference& module : result.modules) {
    REQUIRE(module.distance.relative == Approx(1));
    REQUIRE(module.distance.cosine == Approx(1));
  }
}

TEST_CASE("modules of one side only are listed under it") {
  AdapterConfig one = sample_config();
  one.target_modules = std::vector<std::string>{"fc1"};
  TensorMap tensors = sample_tensors();
  tensors.erase("base_model.model.fc2.lora_A.weight");
  tensors.erase("base_model.model.fc2.lora_B.weight");
  const Adapter full = adapter_with(sample_config(), sample_tensors());
  const Adapter part = adapter_with(one, tensors);
  REQUIRE(diff(full, part, {}).only_in_a == std::vector<std::string>{"fc2"});
  REQUIRE(diff(part, full, {}).only_in_b == std::vector<std::string>{"fc2"});
}

TEST_CASE("adapters of other dimensions cannot be compared, every module is listed") {
  TensorMap wide = sample_tensors();
  wide["base_model.model.fc1.lora_A.weight"] = normal_tensor("a", {4, 12});
  require_error(ErrorKind::incompatible, "fc1 ([20, 10] and [20, 12])", [&] {
    diff(adapter_with(sample_config(), sample_tensors()), adapter_with(sample_config(), wide), {});
  });
}

TEST_CASE("checkpoints: added, removed and changed tensors with their figures") {
  TensorMap a{{"same", normal_tensor("s", {3})},
              {"gone", normal_tensor("g", {2})},
              {"moved", normal_tensor("m", {100})}};
  TensorMap b = a;
  b.erase("gone");
  b["new"] = normal_tensor("n", {2});
  std::vector<float> values = a["moved"].to_f32();
  values[3] += 0.5F;
  b["moved"] = Tensor::from_f32({100}, values);
  const CheckpointDiff result =
      diff(checkpoint_of(a), checkpoint_of(b),
           {.threads = 2, .rank_elements = 0, .largest_rank = 256, .sinks = {}});
  REQUIRE(result.only_in_a == std::vector<std::string>{"gone"});
  REQUIRE(result.only_in_b == std::vector<std::string>{"new"});
  REQUIRE(result.equal == 1);
  REQUIRE(result.changed.size() == 1);
  REQUIRE(result.changed[0].what == "values");
  REQUIRE(result.changed[0].changed_elements == 1);
  REQUIRE(result.changed[0].max_absolute == Approx(0.5).epsilon(1e-6));
}

TEST_CASE("checkpoints: a dtype change shows the rounding, a shape change the shapes") {
  const Tensor f32 = normal_tensor("x", {64});
  const CheckpointDiff rounded =
      diff(checkpoint_of({{"x", f32}}), checkpoint_of({{"x", f32.cast(DType::bf16)}}), {});
  REQUIRE(rounded.changed[0].what == "dtype");
  REQUIRE(rounded.changed[0].relative > 0);
  REQUIRE(rounded.changed[0].relative < 0x1p-8);
  const CheckpointDiff reshaped =
      diff(checkpoint_of({{"x", f32}}), checkpoint_of({{"x", normal_tensor("x", {8, 8})}}), {});
  REQUIRE(reshaped.changed[0].what == "shape");
  REQUIRE(reshaped.changed[0].b == "F32 [8, 8]");
}

TEST_CASE("checkpoints: a tied and an untied head with the same values are equal") {
  const Tensor embedding = normal_tensor("e", {6, 4});
  Checkpoint tied = checkpoint_of({{"model.embed_tokens.weight", embedding}});
  tied.aliases["lm_head.weight"] = "model.embed_tokens.weight";
  const Checkpoint untied =
      checkpoint_of({{"model.embed_tokens.weight", embedding}, {"lm_head.weight", embedding}});
  REQUIRE(diff(tied, untied, {}).is_equal());
}
