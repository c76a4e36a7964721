// What PEFT's merge_and_unload made of tied heads and saved embeddings
// (tests/golden/adapter/merged).
#include "adapter/kinds.h"
#include "ops/merged_sample.h"

using namespace lora;
using namespace lora::testing;

namespace {

namespace fs = std::filesystem;

const std::string kEmbedding = "model.embed_tokens.weight";

struct GoldenMerge {
  fs::path adapter, base, merged;

  explicit GoldenMerge(const std::string& name, const std::string& base_name = "llama_tied")
      : adapter(golden("kinds") / "adapters" / name),
        base(golden("kinds") / "bases" / base_name),
        merged(golden("merged") / name) {}

  VerifyReport verify() const { return verify(merged); }
  VerifyReport verify(const fs::path& other) const {
    const Checkpoint from = open_checkpoint(base.string());
    const Checkpoint to = open_checkpoint(other.string());
    VerifyOptions options;
    options.adapter = adapter;
    options.base = &from;
    options.merged = &to;
    return lora::verify(options);
  }

  /// The merge with another value in one tensor.
  VerifyReport verify_changed(const std::string& name, std::size_t at, float value) const {
    const TempDir directory;
    fs::copy(merged, directory / "merged");
    TensorMap tensors = read_safetensors(merged / "model.safetensors").tensors;
    std::vector<float> values = tensors.at(name).to_f32();
    values.at(at) = value;
    tensors[name] = Tensor::from_f32(tensors.at(name).shape, values);
    MergeSample::write(directory / "merged/model.safetensors", tensors);
    return verify(directory / "merged");
  }
};

Severity severity_of(const VerifyReport& report, std::string_view rule) {
  for (const Finding& finding : report.findings)
    if (finding.rule == rule) return finding.severity;
  FAIL("no " << rule);
  return Severity::note;
}

/// Replayed whole, with one warning about the matrix that is both embedding and head.
void require_shared(const GoldenMerge& merge, std::string_view part) {
  const VerifyReport report = merge.verify();
  REQUIRE(report.merged.value().is_reproduced());
  REQUIRE(!report.has_error());
  INFO(message_of(report, "LV708"));
  REQUIRE(message_of(report, "LV708").find(part) != std::string::npos);
  REQUIRE(severity_of(report, "LV708") == Severity::warning);
  // The adapters hold the embedding whole as well, which PEFT puts in place before it merges.
  const VerifyReport changed = merge.verify_changed(kEmbedding, 3, 0.125F);
  REQUIRE(message_of(changed, "LV704").find(kEmbedding + " (1 of ") != std::string::npos);
}

}  // namespace

TEST_CASE("PEFT's merge of LoRA on a tied head and embedding is replayed and explained") {
  require_shared(GoldenMerge("tied_head_only"), "the update of lm_head changes both");
  require_shared(GoldenMerge("tied_independent"), "it holds the updates of both");
  require_shared(GoldenMerge("tied_together"), "the update of ensure_weight_tying twice");
}

TEST_CASE("PEFT's merge of a saved embedding under ensure_weight_tying holds the adapter's copy") {
  const GoldenMerge merge("tied_saved");
  const VerifyReport report = merge.verify();
  require_reproduced(report);
  REQUIRE(proof_of(report, kEmbedding) == MergeProof::saved);
  const VerifyReport changed = merge.verify_changed(kEmbedding, 3, 0.125F);
  REQUIRE(message_of(changed, "LV704").find(kEmbedding + " (1 of ") != std::string::npos);
}

TEST_CASE("a saved embedding unties the head, which keeps the base's matrix") {
  const GoldenMerge merge("tied_saved_bert", "bert");
  const std::string head = "cls.predictions.decoder.weight";
  const VerifyReport report = merge.verify();
  require_reproduced(report);
  REQUIRE(proof_of(report, "bert.embeddings.word_embeddings.weight") == MergeProof::saved);
  REQUIRE(proof_of(report, head) == MergeProof::unchanged);
  const VerifyReport changed = merge.verify_changed(head, 3, 0.125F);
  REQUIRE(message_of(changed, "LV708").find(head + " (1 of ") != std::string::npos);
  REQUIRE(severity_of(changed, "LV708") == Severity::error);
}

TEST_CASE("PEFT's merge of saved whole embeddings holds them, also with more rows than the base") {
  const GoldenMerge merge("saved_embeddings_resized", "llama");
  const VerifyReport report = merge.verify();
  require_reproduced(report);
  for (const std::string& name : {kEmbedding, std::string("lm_head.weight")}) {
    REQUIRE(proof_of(report, name) == MergeProof::saved);
    const VerifyReport changed = merge.verify_changed(name, 0, 0.125F);
    REQUIRE(message_of(changed, "LV704").find(name + " (1 of ") != std::string::npos);
  }
}

TEST_CASE("PEFT's merge of trainable token rows changes the tied matrix in these rows only") {
  const GoldenMerge merge("tokens_tied");
  const VerifyReport report = merge.verify();
  require_reproduced(report);
  REQUIRE(proof_of(report, kEmbedding) == MergeProof::merge);
  const std::vector<float> before =
      read_safetensors(merge.base / "model.safetensors").tensors.at(kEmbedding).to_f32();
  const Tensor after = read_safetensors(merge.merged / "model.safetensors").tensors.at(kEmbedding);
  const TokenRows rows = open_adapter(merge.adapter).tokens.at(0);
  const std::vector<float> expected = rows.rows.to_f32(), found = after.to_f32();
  const auto width = static_cast<std::size_t>(after.shape[1]);
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto row =
        std::find(rows.indices.begin(), rows.indices.end(), static_cast<std::int64_t>(i / width));
    const auto at = static_cast<std::size_t>(row - rows.indices.begin());
    REQUIRE(found[i] == (row == rows.indices.end() ? before[i] : expected[at * width + i % width]));
  }
  REQUIRE(merge.verify_changed(kEmbedding, 0, 0.125F).has_error());
}
