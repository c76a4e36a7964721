#include <algorithm>

#include "ops/merged_sample.h"

using namespace lora;
using namespace lora::testing;

TEST_CASE("a merge is proven bit for bit, and by which of PEFT's two roundings") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    INFO(to_string(dtype));
    MergeSample sample(dtype);
    const VerifyReport plain = sample.verify();
    require_reproduced(plain);
    REQUIRE(proof_of(plain, "up.weight") == MergeProof::merge);
    REQUIRE(proof_of(plain, "norm.weight") == MergeProof::unchanged);
    sample.merge({.is_safe = true});
    const VerifyReport safe = sample.verify();
    require_reproduced(safe);
    REQUIRE(proof_of(safe, "up.weight") ==
            (dtype == DType::f32 ? MergeProof::merge : MergeProof::safe_merge));
  }
}

TEST_CASE("the report does not depend on the number of threads") {
  MergeSample sample(DType::bf16);
  const VerifyReport one = sample.verify({}, 1);
  const VerifyReport many = sample.verify({}, 7);
  REQUIRE(one.merged->survived == many.merged->survived);
  REQUIRE(one.merged->cosine == many.merged->cosine);
}

TEST_CASE("another order of summation is within one ulp, and two ulps are not") {
  MergeSample sample;
  sample.change("up.weight",
                [](std::vector<float>& values) { values[7] = std::nextafter(values[7], 100.0F); });
  const VerifyReport near = sample.verify();
  require_reproduced(near);
  REQUIRE(proof_of(near, "up.weight") == MergeProof::one_ulp);
  REQUIRE(proof_of(near, "square.weight") == MergeProof::merge);
  // The product's own error bound allows some ulps more where terms cancel; this is beyond it.
  sample.change("up.weight", [](std::vector<float>& values) { values[7] *= 1 + 1e-4F; });
  const VerifyReport far = sample.verify();
  REQUIRE(proof_of(far, "up.weight") == MergeProof::differs);
  const std::string message = message_of(far, "LV701");
  INFO(message);
  REQUIRE(message.find("1 of 2 updated tensors") != std::string::npos);
  REQUIRE(message.find("1 of 960 elements, first at [0, 7]") != std::string::npos);
}

TEST_CASE("a tensor of 16 bits may not move by two ulps") {
  MergeSample sample(DType::bf16);
  sample.change("square.weight", [](std::vector<float>& values) { values[30] *= 1 + 0x1p-5F; });
  REQUIRE(proof_of(sample.verify(), "square.weight") == MergeProof::differs);
}

TEST_CASE("a change of the whole checkpoint's dtype is one more rounding") {
  MergeSample sample;
  TensorMap low;
  for (const auto& [name, tensor] : sample.merged) low[name] = tensor.cast(DType::bf16);
  sample.merged = low;
  const VerifyReport report = sample.verify();
  require_reproduced(report);
  REQUIRE(proof_of(report, "up.weight") == MergeProof::merge);
  REQUIRE(proof_of(report, "norm.weight") == MergeProof::unchanged);
  sample.change("norm.weight", [](std::vector<float>& values) { values[3] += 1; });
  REQUIRE(!message_of(sample.verify(), "LV708").empty());
}

TEST_CASE("a merge made otherwise is explained") {
  using Kind = MergeExplanation::Kind;
  struct Row {
    MergeMaking making;
    Kind kind;
    const char* part;
  };
  const std::vector<Row> rows{
      {{.times = 0}, Kind::not_applied, "was not applied in 2 of the 2"},
      {{.times = 2}, Kind::applied_twice, "added twice in 2"},
      {{.factor = -1}, Kind::subtracted, "subtracted in 2"},
      {{.factor = 1.5}, Kind::other_scale, "scale 3 fits, expected 2,"},
      {{.factor = 2}, Kind::applied_twice, "added twice"},
      {{.factor = 4}, Kind::other_scale, "scale 8 fits, expected 2,"},
  };
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Row& row : rows) {
      if (dtype == DType::bf16 && row.making.factor == 2) continue;  // twice and double round apart
      INFO(to_string(dtype) << " " << row.part);
      MergeSample sample(dtype);
      sample.merge(row.making);
      const VerifyReport report = sample.verify();
      REQUIRE(report.has_error());
      REQUIRE(!message_of(report, "LV701").empty());
      REQUIRE(report.merged->explanations.size() == 1);
      REQUIRE(report.merged->explanations.front().kind == row.kind);
      INFO(message_of(report, "LV707"));
      REQUIRE(message_of(report, "LV707").find(row.part) != std::string::npos);
    }
}

TEST_CASE("rsLoRA's scaling taken for the plain one is named in both directions") {
  for (const bool is_rslora : {false, true}) {
    MergeSample sample;
    sample.config.use_rslora = is_rslora;
    // rank 4: alpha / sqrt(r) is twice alpha / r, and must not be called "twice".
    sample.config.alpha = 12;
    sample.merge({.factor = is_rslora ? 0.5 : 2.0});
    const VerifyReport report = sample.verify();
    REQUIRE(report.merged->explanations.size() == 1);
    const auto kind = report.merged->explanations.front().kind;
    if (is_rslora)
      REQUIRE(kind == MergeExplanation::Kind::rslora_ignored);
    else
      REQUIRE((kind == MergeExplanation::Kind::rslora_ignored ||
               kind == MergeExplanation::Kind::applied_twice));
  }
}

TEST_CASE("an update added transposed is found out in square weights") {
  MergeSample sample;
  sample.merge_module("square", {.is_transposed = true});
  const VerifyReport report = sample.verify();
  REQUIRE(report.merged->explanations.size() == 1);
  REQUIRE(report.merged->explanations.front().kind == MergeExplanation::Kind::transposed);
  REQUIRE(message_of(report, "LV707").find("transposed in 1 of the 1") != std::string::npos);
}

TEST_CASE("the adapter that fits is named among the given ones") {
  MergeSample sample;
  const TensorMap claimed = MergeSample::factors(2);
  const Adapter other = make_adapter(sample.config, sample.adapter, "other");
  const Adapter unrelated = make_adapter(sample.config, MergeSample::factors(3), "unrelated");
  sample.adapter = claimed;
  const VerifyReport report = sample.verify({&unrelated, &other});
  REQUIRE(report.merged->explanations.size() == 1);
  REQUIRE(report.merged->explanations.front().adapter == "other");
  REQUIRE(message_of(report, "LV707").find("adapter other fits in 2") != std::string::npos);
  const VerifyReport none = sample.verify({&unrelated});
  REQUIRE(none.merged->explanations.empty());
  REQUIRE(!message_of(none, "LV701").empty());
}

TEST_CASE("another base is recognised by what the adapter does not touch") {
  MergeSample sample;
  for (auto& [name, tensor] : sample.base) tensor = normal_tensor("other " + name, tensor.shape);
  const VerifyReport report = sample.verify();
  REQUIRE(report.merged->explanations.back().kind == MergeExplanation::Kind::other_base);
  REQUIRE(message_of(report, "LV707").find("another base: 2 of the 2") != std::string::npos);
  REQUIRE(!message_of(report, "LV708").empty());
}

TEST_CASE("one changed tensor is no other base") {
  MergeSample sample;
  sample.change("norm.bias", [](std::vector<float>& values) { values[1] += 1; });
  const VerifyReport report = sample.verify();
  REQUIRE(report.merged->explanations.empty());
  const std::string message = message_of(report, "LV708");
  INFO(message);
  REQUIRE(message.find("norm.bias (1 of 24 elements, first at [1]") != std::string::npos);
  REQUIRE(message_of(report, "LV701").empty());
}

TEST_CASE("missing, misshaped and left-over tensors are named") {
  MergeSample sample;
  sample.merged.erase("norm.bias");
  sample.merged["norm.weight"] = normal_tensor("norm", {25});
  sample.merged["stray"] = normal_tensor("stray", {3});
  const VerifyReport report = sample.verify();
  const std::string message = message_of(report, "LV702");
  INFO(message);
  REQUIRE(message.find("norm.bias, norm.weight (shape [25], expected [24])") != std::string::npos);
  REQUIRE(report.merged->extra == std::vector<std::string>{"stray"});
  REQUIRE(message_of(MergeSample().verify(), "LV702").empty());
}

TEST_CASE("names of an adapter in the merged checkpoint are named as such") {
  MergeSample sample;
  sample.merged["up.lora_A.weight"] = normal_tensor("x", {4, 40});
  const VerifyReport report = sample.verify();
  REQUIRE(message_of(report, "LV703").find("up.lora_A.weight") != std::string::npos);
  REQUIRE(message_of(report, "LV702").empty());
  REQUIRE(message_of(MergeSample().verify(), "LV703").empty());
}

TEST_CASE("saved modules reach the merged checkpoint, or are said to be dropped") {
  MergeSample sample;
  sample.config.modules_to_save = {"norm"};
  const Tensor weight = normal_tensor("saved", {24}), bias = normal_tensor("saved bias", {24});
  sample.adapter["base_model.model.norm.weight"] = weight;
  sample.adapter["base_model.model.norm.bias"] = bias;
  sample.merge();
  const VerifyReport dropped = sample.verify();
  REQUIRE(message_of(dropped, "LV704").find("of norm.bias were dropped: the base's are there") !=
          std::string::npos);
  sample.merged["norm.weight"] = weight;
  sample.merged["norm.bias"] = bias;
  const VerifyReport whole = sample.verify();
  require_reproduced(whole);
  REQUIRE(proof_of(whole, "norm.weight") == MergeProof::saved);
  sample.change("norm.weight", [](std::vector<float>& values) { values[5] = 9; });
  const VerifyReport changed = sample.verify();
  REQUIRE(message_of(changed, "LV704").find("1 of 24 elements, first at [5]: found 9") !=
          std::string::npos);
}

TEST_CASE("rounding loss is a note, and a warning where most of the update is gone") {
  const VerifyReport whole = MergeSample(DType::bf16, 0.3).verify();
  for (const Finding& finding : whole.findings)
    REQUIRE((finding.rule != "LV706" || finding.severity == Severity::note));
  const VerifyReport lost = MergeSample(DType::bf16, 0.01).verify();
  require_reproduced(MergeSample(DType::f32, 0.01).verify());
  REQUIRE(lost.merged->is_reproduced());
  REQUIRE(lost.merged->survived < 0.5);
  const std::string message = message_of(lost, "LV706");
  INFO(message);
  REQUIRE(message.find("of the update's energy") != std::string::npos);
  for (const Finding& finding : lost.findings)
    if (finding.rule == "LV706") REQUIRE(finding.severity == Severity::warning);
  REQUIRE(message_of(MergeSample(DType::f32, 0.01).verify(), "LV706").empty());
}

TEST_CASE("a rounding error longer than the update is a warning, a shorter one is not") {
  REQUIRE(is_lossy_merge(0.6, 0.70));
  REQUIRE(!is_lossy_merge(0.6, 0.71));
  REQUIRE(is_lossy_merge(0.49, 1));
}

TEST_CASE("a base rewritten at loading cannot be replayed, which is no verdict") {
  MergeSample sample;
  sample.config.init_lora_weights = Json("pissa");
  const VerifyReport report = sample.verify();
  REQUIRE(proof_of(report, "up.weight") == MergeProof::not_replayed);
  REQUIRE(report.is_inconclusive());
  REQUIRE(message_of(report, "LV701").find("init_lora_weights \"pissa\"") != std::string::npos);
}

TEST_CASE("a merged checkpoint that cannot be opened is a finding") {
  MergeSample sample;
  sample.verify();
  VerifyOptions options;
  options.adapter = sample.directory / "adapter";
  options.merged_report = unreadable_merged(
      "merged", Error(ErrorKind::not_found, "cannot open x: shards it names are missing: b"));
  VerifyReport report = verify(options);
  REQUIRE(message_of(report, "LV702").find("shards it names are missing") != std::string::npos);
  options.merged_report = unreadable_merged(
      "merged", Error(ErrorKind::malformed, "index x disagrees with its shards: not in their"));
  report = verify(options);
  REQUIRE(message_of(report, "LV705").find("disagrees with its shards") != std::string::npos);
  REQUIRE(message_of(report, "LV702").empty());
}

TEST_CASE("a merge of updates that are zero is proven, and nothing is lost by rounding") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    MergeSample sample(dtype, 0);
    const VerifyReport report = sample.verify();
    require_reproduced(report);
    REQUIRE(message_of(report, "LV706").empty());
    REQUIRE(!message_of(report, "LV402").empty());
  }
}
