#include "lora/ops/diff.h"

#include <cmath>
#include <limits>

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

TEST_CASE("values that are not finite are no difference of zero") {
  TensorMap spoiled = sample_tensors();
  std::vector<float> values = spoiled["base_model.model.fc1.lora_A.weight"].to_f32();
  const Adapter good = adapter_with(sample_config(), sample_tensors());
  for (const float value :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    values[7] = value;
    spoiled["base_model.model.fc1.lora_A.weight"] = Tensor::from_f32({4, 10}, values);
    const Adapter bad = adapter_with(sample_config(), spoiled);
    const AdapterDiff result = diff(good, bad, {});
    REQUIRE(!result.is_equal());
    const ModuleDifference& module = result.modules.at(0);
    REQUIRE(module.is_finite_a);
    REQUIRE(!module.is_finite_b);
    REQUIRE(result.modules.at(1).is_finite_b);
    for (const double figure :
         {module.distance.relative, module.distance.difference, result.total_difference,
          result.total_cosine, result.by_leaf.at(0).relative, result.by_leaf.at(0).cosine})
      REQUIRE(std::isnan(figure));
    REQUIRE(result.by_leaf.at(1).relative == 0);
    // The same bytes are the same, whatever they mean.
    REQUIRE(diff(bad, bad, {}).is_equal());
    REQUIRE(!diff(bad, bad, {}).modules.at(0).is_finite_a);
  }
}

TEST_CASE("a magnitude that is not finite is told, though the directions have figures") {
  AdapterConfig config = sample_config();
  config.use_dora = true;
  TensorMap tensors = sample_tensors();
  tensors["base_model.model.fc1.lora_magnitude_vector"] = normal_tensor("m", {20});
  tensors["base_model.model.fc2.lora_magnitude_vector"] = normal_tensor("n", {2});
  TensorMap spoiled = tensors;
  spoiled["base_model.model.fc2.lora_magnitude_vector"] =
      Tensor::from_f32({2}, std::vector<float>{1, std::numeric_limits<float>::quiet_NaN()});
  const AdapterDiff result = diff(adapter_with(config, tensors), adapter_with(config, spoiled), {});
  REQUIRE(result.modules.at(0).is_finite_b);
  REQUIRE(!result.modules.at(1).is_finite_b);
}

TEST_CASE("a further adapter in one of the files is a difference, and so is another one in both") {
  const auto with_second = [](std::uint64_t seed, const std::string& name) {
    TensorMap tensors = sample_tensors();
    for (const auto& [key, tensor] : sample_tensors(seed))
      tensors[key.substr(0, key.rfind('.')) + "." + name + ".weight"] = tensor;
    return adapter_with(sample_config(), tensors);
  };
  const Adapter alone = adapter_with(sample_config(), sample_tensors());
  const Adapter two = with_second(2, "second");
  REQUIRE(diff(alone, two, {}).only_in_b == std::vector<std::string>{"adapter second"});
  REQUIRE(diff(two, alone, {}).only_in_a == std::vector<std::string>{"adapter second"});
  REQUIRE(!diff(two, alone, {}).is_equal());
  REQUIRE(diff(two, two, {}).is_equal());
  REQUIRE(diff(two, with_second(3, "second"), {}).changed_replacements ==
          std::vector<std::string>{"adapter second"});
  REQUIRE(diff(two, with_second(2, "third"), {}).only_in_b ==
          std::vector<std::string>{"adapter third"});
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

TEST_CASE("fields that change the computation are told from those that only training reads") {
  AdapterConfig other = sample_config();
  other.use_rslora = true;
  other.dropout = 0.1;
  other.init_lora_weights = "gaussian";
  const auto fields = diff(adapter_with(sample_config(), sample_tensors()),
                           adapter_with(other, sample_tensors()), {})
                          .fields;
  REQUIRE(fields.size() == 3);
  REQUIRE(fields[0].field == "init_lora_weights");
  REQUIRE(fields[0].effect.empty());
  REQUIRE(fields[1].field == "lora_dropout");
  REQUIRE(fields[1].effect.empty());
  REQUIRE(fields[2].field == "use_rslora");
  REQUIRE(fields[2].effect.find("scaling") != std::string::npos);
  other.init_lora_weights = "pissa";
  REQUIRE(!diff(adapter_with(sample_config(), sample_tensors()),
                adapter_with(other, sample_tensors()), {})
               .fields[0]
               .effect.empty());
}

TEST_CASE("differences add up by leaf, by layer and in heat maps") {
  AdapterConfig config = sample_config();
  config.target_modules = std::vector<std::string>{"q", "v"};
  TensorMap a;
  for (const char* path : {"h.0.q", "h.0.v", "h.10.q", "h.2.q"}) {
    const std::string stem = std::string("base_model.model.") + path;
    a[stem + ".lora_A.weight"] = normal_tensor(stem + "a", {4, 12});
    a[stem + ".lora_B.weight"] = normal_tensor(stem + "b", {12, 4});
  }
  TensorMap b = a;
  b["base_model.model.h.10.q.lora_B.weight"] = normal_tensor("other", {12, 4});
  const AdapterDiff result = diff(adapter_with(config, a), adapter_with(config, b), {});
  REQUIRE(result.by_leaf.size() == 2);
  REQUIRE(result.by_leaf[0].name == "q");
  REQUIRE(result.by_leaf[0].modules == 3);
  REQUIRE(result.by_leaf[0].changed == 1);
  REQUIRE(result.by_leaf[1].difference == 0);
  REQUIRE(result.by_layer.size() == 3);
  REQUIRE(result.by_layer[1].name == "2");
  REQUIRE(result.by_layer[2].relative == Approx(result.modules[2].distance.relative));
  REQUIRE(result.relative_map.rows == std::vector<std::string>{"0", "2", "10"});
  REQUIRE(result.relative_map.columns == std::vector<std::string>{"q", "v"});
  REQUIRE(result.relative_map.values[4] == Approx(result.modules[2].distance.relative));
  REQUIRE(std::isnan(result.relative_map.values[5]));
  REQUIRE(result.total_norm_a > result.by_leaf[0].norm_a);
}

TEST_CASE("checkpoints: steps are counted in the coarser dtype") {
  const std::vector<float> a{1.0F, 1.0F, -1.0F, 0.0F, 2.0F};
  std::vector<float> b = a;
  b[1] = std::nextafter(std::nextafter(1.0F, 2.0F), 2.0F);
  b[2] = -1.0F - 0x1p-7F;
  b[3] = -0.0F;
  const Tensor left = Tensor::from_f32({5}, a);
  const Tensor right = Tensor::from_f32({5}, b);
  const TensorDifference f32 =
      diff(checkpoint_of({{"x", left}}), checkpoint_of({{"x", right}}), {}).changed[0];
  REQUIRE(f32.ulps.dtype == "F32");
  REQUIRE(f32.ulps.counts[0] == 3);
  REQUIRE(f32.ulps.counts[2] == 1);   // two steps
  REQUIRE(f32.ulps.counts[17] == 1);  // 2^16 steps
  REQUIRE(f32.changed_elements == 2);
  for (const Tensor& rounded :
       {right.cast(DType::bf16), right.cast(DType::bf16).cast(DType::f16)}) {
    const TensorDifference mixed =
        diff(checkpoint_of({{"x", left.cast(DType::bf16)}}), checkpoint_of({{"x", rounded}}), {})
            .changed[0];
    REQUIRE(mixed.ulps.dtype == "BF16");
    REQUIRE(mixed.ulps.counts[0] == 4);
    REQUIRE(mixed.ulps.counts[1] == 1);
  }
  const TensorDifference f16 = diff(checkpoint_of({{"x", left.cast(DType::f16)}}),
                                    checkpoint_of({{"x", right.cast(DType::f16)}}), {})
                                   .changed[0];
  REQUIRE(f16.ulps.counts[4] == 1);  // 8 steps of 2^-10
}

TEST_CASE("checkpoints: values that are not finite are counted and leave the norms finite") {
  std::vector<float> values(40, 1.0F);
  const Tensor left = Tensor::from_f32({40}, values);
  values[3] = std::numeric_limits<float>::quiet_NaN();
  values[4] = std::numeric_limits<float>::infinity();
  values[5] = 3;
  const TensorDifference difference =
      diff(checkpoint_of({{"x", left}}), checkpoint_of({{"x", Tensor::from_f32({40}, values)}}), {})
          .changed[0];
  REQUIRE(difference.non_finite_b == 2);
  REQUIRE(difference.non_finite_a == 0);
  REQUIRE(difference.ulps.not_comparable == 1);
  REQUIRE(difference.changed_elements == 3);
  REQUIRE(difference.difference == 2);
  REQUIRE(std::isinf(difference.max_absolute));
}

TEST_CASE("checkpoints: tensors add up to blocks in natural order") {
  TensorMap a;
  for (const char* name : {"h.10.w", "h.9.w", "h.9.v", "embed.weight"})
    a[name] = normal_tensor(name, {3, 4});
  TensorMap b = a;
  b["h.9.v"] = normal_tensor("new", {3, 4});
  const CheckpointDiff result = diff(checkpoint_of(a), checkpoint_of(b), {});
  REQUIRE(result.blocks.size() == 3);
  REQUIRE(result.blocks[0].name == "embed");
  REQUIRE(result.blocks[1].name == "h.9");
  REQUIRE(result.blocks[1].tensors == 2);
  REQUIRE(result.blocks[1].changed == 1);
  REQUIRE(result.blocks[2].name == "h.10");
  REQUIRE(result.blocks[2].changed == 0);
}

namespace {

// W + scale * B . A of rank 5, rounded to `dtype`.
Tensor merged(const Tensor& weight, double scale, DType dtype) {
  const std::vector<float> a = normal_tensor("a", {5, 90}).to_f32();
  const std::vector<float> b = normal_tensor("b", {120, 5}).to_f32();
  std::vector<float> values = weight.to_f32();
  for (std::size_t o = 0; o < 120; ++o)
    for (std::size_t i = 0; i < 90; ++i)
      for (std::size_t r = 0; r < 5; ++r)
        values[o * 90 + i] += static_cast<float>(scale * b[o * 5 + r] * a[r * 90 + i]);
  return Tensor::from_f32({120, 90}, values).cast(dtype);
}

}  // namespace

TEST_CASE("checkpoints: a merged LoRA is of its rank, in any dtype, a full change is not") {
  const Tensor weight = normal_tensor("w", {120, 90}, 0.05).cast(DType::bf16);
  const auto rank_of = [&](const Tensor& tuned) {
    return diff(checkpoint_of({{"x", weight}}), checkpoint_of({{"x", tuned}}), {})
        .changed[0]
        .rank.value();
  };
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const DifferenceRank rank = rank_of(merged(weight, 0.01, dtype));
    INFO(to_string(dtype));
    REQUIRE(rank.rank == 5);
    REQUIRE(rank.is_low_rank);
    REQUIRE(!rank.is_lower_bound);
    REQUIRE(rank.residual < 1.5 * rank.rounding + 1e-6);
  }
  const DifferenceRank full = rank_of(normal_tensor("other", {120, 90}, 0.05));
  REQUIRE(full.rank == 90);
  REQUIRE(!full.is_low_rank);
  CheckpointDiffOptions none;
  none.rank_elements = 0;
  REQUIRE(!diff(checkpoint_of({{"x", weight}}),
                checkpoint_of({{"x", merged(weight, 0.01, DType::f32)}}), none)
               .changed[0]
               .rank);
}

TEST_CASE("checkpoints: ranks above the limit are a lower bound") {
  CheckpointDiffOptions options;
  options.largest_rank = 16;
  const DifferenceRank rank = diff(checkpoint_of({{"x", normal_tensor("x", {90, 80})}}),
                                   checkpoint_of({{"x", normal_tensor("y", {90, 80})}}), options)
                                  .changed[0]
                                  .rank.value();
  REQUIRE(rank.is_lower_bound);
  REQUIRE(rank.rank == 24);
}

TEST_CASE("checkpoints: the result does not depend on the number of threads") {
  const Checkpoint a = checkpoint_of({{"x", normal_tensor("x", {300, 70})}});
  const Checkpoint b = checkpoint_of({{"x", normal_tensor("y", {300, 70})}});
  CheckpointDiffOptions one, four;
  one.threads = 1;
  four.threads = 4;
  REQUIRE(diff(a, b, one).changed[0].difference == diff(a, b, four).changed[0].difference);
}

TEST_CASE("an adapter against a tuned checkpoint: merged, scaled, and with more changed") {
  TempDir directory;
  const Checkpoint base = sample_base(directory / "base");
  const Adapter adapter = adapter_with(sample_config(), sample_tensors());
  Checkpoint tuned = checkpoint_of(base.tensors);
  for (const LoraModule& module : adapter.modules) {
    const std::vector<float> a = module.a.to_f32();
    const std::vector<float> b = module.b.to_f32();
    Tensor& weight = tuned.tensors.at(module.base_name);
    std::vector<float> values = weight.to_f32();
    const auto width = static_cast<std::size_t>(module.a.shape[1]);
    for (std::size_t o = 0; o < values.size() / width; ++o)
      for (std::size_t i = 0; i < width; ++i)
        for (std::size_t r = 0; r < 4; ++r)
          values[o * width + i] +=
              static_cast<float>(module.scaling * b[o * 4 + r] * a[r * width + i]);
    weight = Tensor::from_f32(weight.shape, values);
  }
  const TunedDiff same = diff(adapter, base, tuned, {});
  REQUIRE(same.is_equal());
  REQUIRE(same.modules.size() == 2);
  REQUIRE(same.best_scale == Approx(1).epsilon(1e-5));
  REQUIRE(same.cosine == Approx(1).epsilon(1e-9));

  AdapterConfig twice = sample_config();
  twice.alpha = 16;
  const TunedDiff scaled = diff(adapter_with(twice, sample_tensors()), base, tuned, {});
  REQUIRE(!scaled.is_equal());
  REQUIRE(scaled.modules[0].best_scale == Approx(0.5).epsilon(1e-5));
  REQUIRE(scaled.modules[0].relative == Approx(0.5).epsilon(1e-5));
  REQUIRE(scaled.modules[0].relative_at_best < 1e-5);

  tuned.tensors["fc1.bias"] = normal_tensor("changed", {20});
  tuned.tensors.erase("fc2.weight");
  const TunedDiff other = diff(adapter, base, tuned, {});
  REQUIRE(!other.is_equal());
  REQUIRE(other.changed_elsewhere == std::vector<std::string>{"fc1.bias"});
  REQUIRE(other.only_in_base == std::vector<std::string>{"fc2.weight"});
  REQUIRE(other.modules[1].not_compared.find("fc2.weight") != std::string::npos);
}
