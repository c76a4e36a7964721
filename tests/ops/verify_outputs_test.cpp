#include <algorithm>

#include "lora/checkpoint/probe_inputs.h"
#include "lora/ops/diff_outputs.h"
#include "lora/ops/verify.h"
#include "ops/null_effect.h"
#include "support/sample_adapter.h"
#include "support/small_engine.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

// A recorded adapter on its base, and a way to ask again.
struct Recorded {
  TempDir directory;
  SmallEngine engine;
  Checkpoint base = sample_base(directory / "base");
  std::filesystem::path adapter = directory / "adapter";

  Recorded() { record(sample_tensors()); }

  void record(const TensorMap& tensors) {
    write_sample(adapter, sample_config(), tensors);
    const Adapter opened = open_adapter(adapter);
    Probe probe;
    probe.inputs = probe_inputs(base);
    ModelOptions options;
    options.base = &base;
    options.adapters = {&opened};
    SmallModel model(options);
    probe.adapted = record_outputs(output_matrix(model.forward(probe.inputs)));
    model.enable_adapters(false);
    probe.base = record_outputs(output_matrix(model.forward(probe.inputs)));
    AtomicDirectory out(directory / "record", WriteOptions{true, nullptr});
    write_probe(out, probe);
    out.commit();
  }

  VerifyReport verify_on(const Checkpoint& given, const Checkpoint* merged = nullptr,
                         int null_samples = 0) {
    VerifyOptions options;
    options.adapter = adapter;
    options.base = &given;
    options.merged = merged;
    options.check_outputs = true;
    const Probe record = read_probe(directory / "record" / kProbeName);
    options.probe = &record;
    options.engine = [this]() -> Engine& { return engine; };
    options.null_samples = null_samples;
    return verify(options);
  }

  void rewrite(const AdapterConfig& config, const TensorMap& tensors) {
    write_sample(adapter, config, tensors);
  }
};

bool has_rule(const VerifyReport& report, std::string_view rule) {
  return std::any_of(report.findings.begin(), report.findings.end(),
                     [&](const Finding& finding) { return finding.rule == rule; });
}

Checkpoint cast(Checkpoint checkpoint, DType dtype) {
  for (auto& [name, tensor] : checkpoint.tensors) tensor = tensor.cast(dtype);
  return checkpoint;
}

// W + scaling B A in f32, as a merge writes it.
Checkpoint merged_with(Checkpoint checkpoint, const Adapter& adapter, double times) {
  for (const LoraModule& module : adapter.modules) {
    Tensor& weight = checkpoint.tensors.at(module.base_name);
    std::vector<float> w = weight.to_f32();
    const std::vector<float> a = module.a.to_f32();
    const std::vector<float> b = module.b.to_f32();
    const auto in = static_cast<std::size_t>(module.a.shape[1]);
    const auto rank = static_cast<std::size_t>(module.rank);
    for (std::size_t i = 0; i < w.size(); ++i) {
      double sum = 0;
      for (std::size_t k = 0; k < rank; ++k)
        sum += double(b[i / in * rank + k]) * a[k * in + i % in];
      w[i] += static_cast<float>(times * module.scaling * sum);
    }
    weight = Tensor::from_f32(weight.shape, w);
  }
  return checkpoint;
}

}  // namespace

TEST_CASE("the same question gets the same answer, bit for bit") {
  Recorded recorded;
  const VerifyReport report = recorded.verify_on(recorded.base);
  REQUIRE(report.outputs.has_value());
  REQUIRE(report.outputs->cause == OutputCause::equal);
  REQUIRE(report.outputs->base.is_bit_equal);
  REQUIRE(report.outputs->adapted.is_bit_equal);
  REQUIRE(report.outputs->effect.largest > 0.1);
  for (const char* rule : {"LV601", "LV602", "LV603", "LV604", "LV605", "LV606", "LV607"})
    REQUIRE(!has_rule(report, rule));
}

TEST_CASE("another base is a wrong base") {
  Recorded recorded;
  const Checkpoint other = sample_base(recorded.directory / "other", 7);
  const VerifyReport report = recorded.verify_on(other);
  REQUIRE(report.outputs->cause == OutputCause::wrong_base);
  REQUIRE(has_rule(report, "LV602"));
  REQUIRE(report.has_error());
}

TEST_CASE("an adapter whose factors were zeroed is inert") {
  Recorded recorded;
  TensorMap tensors = sample_tensors();
  for (auto& [name, tensor] : tensors)
    if (name.find("lora_B") != std::string::npos)
      tensor = Tensor::from_f32(tensor.shape,
                                std::vector<float>(static_cast<std::size_t>(tensor.numel())));
  recorded.rewrite(sample_config(), tensors);
  const VerifyReport report = recorded.verify_on(recorded.base);
  REQUIRE(report.outputs->cause == OutputCause::inert_adapter);
  REQUIRE(has_rule(report, "LV604"));
  REQUIRE(!has_rule(report, "LV601"));
  REQUIRE(report.has_error());
}

TEST_CASE("an adapter applied at another strength has changed") {
  Recorded recorded;
  AdapterConfig config = sample_config();
  config.alpha = 12;
  recorded.rewrite(config, sample_tensors());
  const VerifyReport report = recorded.verify_on(recorded.base);
  REQUIRE(report.outputs->cause == OutputCause::changed);
  REQUIRE(has_rule(report, "LV601"));
}

TEST_CASE("a base stored in fewer bits is rounding, and a warning") {
  Recorded recorded;
  const VerifyReport report = recorded.verify_on(cast(recorded.base, DType::bf16));
  REQUIRE(report.outputs->base.largest > report.outputs->tolerance);
  REQUIRE(report.outputs->cause == OutputCause::rounding);
  REQUIRE(has_rule(report, "LV606"));
  REQUIRE(!has_rule(report, "LV601"));
  REQUIRE(!has_rule(report, "LV602"));
}

TEST_CASE("a weak adapter that loses half its strength is changed, not rounded") {
  Recorded recorded;
  TensorMap weak = sample_tensors();
  for (auto& [name, tensor] : weak) {
    std::vector<float> values = tensor.to_f32();
    for (float& value : values) value *= 0.15F;
    tensor = Tensor::from_f32(tensor.shape, values);
  }
  recorded.record(weak);
  AdapterConfig config = sample_config();
  config.alpha = 4;
  recorded.rewrite(config, weak);
  const VerifyReport report = recorded.verify_on(recorded.base);
  REQUIRE(report.outputs->adapted.largest > report.outputs->tolerance);
  REQUIRE(report.outputs->cause == OutputCause::changed);
}

TEST_CASE("a merged checkpoint answers as base and adapter did, or is named") {
  Recorded recorded;
  const Adapter adapter = open_adapter(recorded.adapter);
  const Checkpoint right = merged_with(recorded.base, adapter, 1);
  const VerifyReport good = recorded.verify_on(recorded.base, &right);
  REQUIRE(good.outputs->merged.has_value());
  REQUIRE(!has_rule(good, "LV607"));
  const Checkpoint twice = merged_with(recorded.base, adapter, 2);
  REQUIRE(has_rule(recorded.verify_on(recorded.base, &twice), "LV607"));
}

TEST_CASE("random twins have the update norms of the adapter and other directions") {
  Recorded recorded;
  const Adapter adapter = open_adapter(recorded.adapter);
  const Adapter twin = random_twin(adapter, 3);
  REQUIRE(twin.modules.size() == adapter.modules.size());
  for (std::size_t i = 0; i < twin.modules.size(); ++i) {
    REQUIRE(update_statistics(twin.modules[i]).norm ==
            Approx(update_statistics(adapter.modules[i]).norm).epsilon(1e-5));
    REQUIRE(std::abs(update_distance(twin.modules[i], adapter.modules[i]).cosine) < 0.6);
  }
  REQUIRE(random_twin(adapter, 4).modules[0].a.to_f32() != twin.modules[0].a.to_f32());
  REQUIRE(random_twin(adapter, 3).modules[0].b.to_f32() == twin.modules[0].b.to_f32());
}

TEST_CASE("an effect like that of random adapters is said to be one") {
  Recorded recorded;
  const VerifyReport random = recorded.verify_on(recorded.base, nullptr, 30);
  REQUIRE(random.outputs->null->samples == 30);
  REQUIRE(random.outputs->null->mean > 0);
  REQUIRE(has_rule(random, "LV605"));

  // Rank one along a probe row in both layers moves far more than a random direction.
  TensorMap aimed = sample_tensors();
  const std::vector<float> x = probe_inputs(recorded.base).at("x").to_f32();
  std::vector<float> a(40), b(80), a2(80), b2(8);
  for (std::size_t i = 0; i < 10; ++i) a[i] = x[i];
  for (std::size_t i = 0; i < 20; ++i) b[i * 4] = 1;
  for (std::size_t i = 0; i < 20; ++i) a2[i] = 1;
  b2[0] = 1;
  aimed["base_model.model.fc1.lora_A.weight"] = Tensor::from_f32({4, 10}, a);
  aimed["base_model.model.fc1.lora_B.weight"] = Tensor::from_f32({20, 4}, b);
  aimed["base_model.model.fc2.lora_A.weight"] = Tensor::from_f32({4, 20}, a2);
  aimed["base_model.model.fc2.lora_B.weight"] = Tensor::from_f32({2, 4}, b2);
  recorded.record(aimed);
  REQUIRE(!has_rule(recorded.verify_on(recorded.base, nullptr, 30), "LV605"));
}

TEST_CASE("two adapters are compared by what they answer on one base") {
  Recorded recorded;
  const Adapter first = make_adapter(sample_config(), sample_tensors(1), {});
  const Adapter second = make_adapter(sample_config(), sample_tensors(2), {});
  const ModelSide a{&recorded.base, &first};
  const OutputDiff other = diff_outputs(recorded.engine, a, {&recorded.base, &second});
  REQUIRE(other.difference.largest > 0);
  REQUIRE(other.effect_a->largest > 0);
  REQUIRE(diff_outputs(recorded.engine, a, a).difference.is_bit_equal);
  const OutputDiff bare = diff_outputs(recorded.engine, {&recorded.base, nullptr}, a);
  REQUIRE(!bare.effect_a.has_value());
  REQUIRE(bare.difference.largest == bare.effect_b->largest);
}
