// merge: what it writes is what verify proves, for every kind; and what it leaves alone.
#include <algorithm>
#include <set>

#include "ops/written_merge.h"

using namespace lora;
using namespace lora::testing;

TEST_CASE("the merge of every kind is proven by verify, or refused before anything is written") {
  // No merge in PEFT either, or none that a plain sum gives.
  const std::set<std::string> refused{
      "convolution_grouped", "kasa", "layer_replication", "olora", "pissa", "qalora"};
  std::size_t merged = 0;
  for (const KindFixture& kind : kind_fixtures()) {
    INFO(kind.name);
    const TempDir directory;
    MergeReport report;
    try {
      report = merge_kind(kind.path, kind.base, directory / "out");
    } catch (const Error& error) {
      INFO(error.message());
      REQUIRE(refused.contains(kind.name));
      REQUIRE((error.kind() == ErrorKind::unsupported || error.kind() == ErrorKind::incompatible));
      REQUIRE(entries(directory.path()) == 0);
      continue;
    }
    ++merged;
    const VerifyReport proof = verify_merge(kind.path, kind.base, directory / "out");
    INFO(complaints(proof));
    REQUIRE(proof.merged.value().is_reproduced());
    REQUIRE(complaints(proof).empty());
  }
  REQUIRE(merged > 100);
}

TEST_CASE(
    "PEFT's own merges are met: bit for bit but for the order of sums in its small products") {
  const fs::path kinds = golden("kinds");
  for (const char* name : {"saved_embeddings_resized", "tied_saved", "tokens_tied"}) {
    INFO(name);
    const TempDir directory;
    const bool is_plain = std::string(name) == "saved_embeddings_resized";
    merge_kind(kinds / "adapters" / name, kinds / "bases" / (is_plain ? "llama" : "llama_tied"),
               directory / "out");
    const TensorMap ours = open_checkpoint((directory / "out").string()).tensors;
    const TensorMap theirs = open_checkpoint((golden("merged") / name).string()).tensors;
    REQUIRE(ours.size() == theirs.size());
    for (const auto& [tensor, value] : theirs) {
      INFO(tensor);
      REQUIRE(ours.at(tensor).shape == value.shape);
      if (std::ranges::equal(ours.at(tensor).bytes, value.bytes)) continue;
      // torch sums products with few rows or columns without fused steps: 2^-24 a term, of
      // updates below one.
      REQUIRE(tensor.find("_proj") != std::string::npos);
      const std::vector<float> a = ours.at(tensor).to_f32(), b = value.to_f32();
      for (std::size_t i = 0; i < a.size(); ++i) REQUIRE(std::abs(a[i] - b[i]) <= 0x1p-22F);
    }
  }
}

TEST_CASE("a head tied to its embedding becomes a matrix of its own where the two differ") {
  const fs::path kinds = golden("kinds"), base = kinds / "bases/llama_tied";
  const TempDir directory;
  const MergeReport report = merge_kind(kinds / "adapters/tied_head_only", base, directory / "out");
  REQUIRE(report.untied == std::vector<std::string>{"lm_head.weight"});
  const Json config = read_json_file(directory / "out/config.json");
  REQUIRE(config.find("tie_word_embeddings")->as_bool() == false);
  const Checkpoint out = open_checkpoint((directory / "out").string());
  const Adapter adapter = open_adapter(kinds / "adapters/tied_head_only");
  REQUIRE(out.aliases.empty());
  // The model before merging changes the head alone.
  const auto saved = adapter.replacements.find("model.embed_tokens.weight");
  const Checkpoint from = open_checkpoint(base.string());
  const Tensor& embedding = saved == adapter.replacements.end()
                                ? from.tensors.at("model.embed_tokens.weight")
                                : saved->second;
  REQUIRE(std::ranges::equal(out.tensors.at("model.embed_tokens.weight").bytes, embedding.bytes));
  REQUIRE(!std::ranges::equal(out.tensors.at("lm_head.weight").bytes, embedding.bytes));

  // One update of both leaves one matrix, which gets it once.
  const MergeReport together =
      merge_kind(kinds / "adapters/tied_together", base, directory / "together");
  REQUIRE(together.untied.empty());
  REQUIRE(complaints(verify_merge(kinds / "adapters/tied_together", base, directory / "together"))
              .empty());
}

TEST_CASE("a merge keeps shards, index, configuration and what no adapter changes") {
  ShardedSample sample;
  const MergeReport report = sample.run();
  require_reproduced(sample.check());
  REQUIRE(report.weights.size() == 2);
  REQUIRE(report.copied == 2);
  REQUIRE(report.changed.value() > 0.5);
  REQUIRE(report.cosine.value() > 0.99);
  REQUIRE(!report.is_lossy);
  for (const char* name :
       {"config.json", "generation_config.json", "model-00001-of-00002.safetensors"})
    REQUIRE(text_of(sample.output / name) == text_of(sample.base_folder / name));
  const Json index = read_json_file(sample.output / "model.safetensors.index.json");
  REQUIRE(*index.find("weight_map")->find("up.weight")->as_string() ==
          "model-00002-of-00002.safetensors");
  REQUIRE(index.find("metadata")->find("total_size")->as_int() == 2 * (24 * 40 + 24 * 24 + 48));
  const BaseLock lock = read_base_lock(sample.output / kBaseLockName);
  REQUIRE(lock.root == report.root.value());
  REQUIRE(lock.root == compute_base_lock(open_checkpoint(sample.output.string()), 1).root);
  // The sample's merge is term by term what PEFT documents.
  const TensorMap out = open_checkpoint(sample.output.string()).tensors;
  for (const auto& [name, tensor] : sample.merged)
    REQUIRE(std::ranges::equal(out.at(name).bytes, tensor.bytes));
}

TEST_CASE("a merge does not depend on threads or memory") {
  ShardedSample sample;
  std::set<std::string> roots;
  for (const int threads : {1, 3})
    for (const std::uint64_t memory : {16'000'000U, 256'000'000U}) {
      MergeOptions options;
      options.threads = threads;
      options.max_memory = memory;
      options.force = true;
      roots.insert(sample.run(options).root->hex());
    }
  REQUIRE(roots.size() == 1);
}

TEST_CASE("safe_merge rounds twice, another dtype once") {
  ShardedSample sample;
  MergeOptions safe;
  safe.is_safe_merge = true;
  sample.run(safe);
  require_reproduced(sample.check());
  REQUIRE(proof_of(sample.check(), "up.weight") == MergeProof::safe_merge);

  MergeOptions wide;
  wide.dtype = DType::f32;
  wide.force = true;
  sample.run(wide);
  require_reproduced(sample.check());
  const Checkpoint out = open_checkpoint(sample.output.string());
  for (const auto& [name, tensor] : out.tensors) REQUIRE(tensor.dtype == DType::f32);
  REQUIRE(out.config->dtype == "float32");
  REQUIRE(proof_of(sample.check(), "norm.weight") == MergeProof::unchanged);
}

TEST_CASE("several adapters are summed in f32 and rounded once") {
  ShardedSample sample(DType::bf16);
  write_sample(sample.directory / "second", sample.config, MergeSample::factors(5));
  const Checkpoint from = open_checkpoint(sample.base_folder.string());
  MergeOptions options;
  options.base = &from;
  options.adapters = {{open_adapter(sample.adapter_folder), 1},
                      {open_adapter(sample.directory / "second"), -0.5}};
  options.output = sample.output;
  merge(options);
  std::vector<double> expected = from.tensors.at("up.weight").to_f64();
  for (const WeightedAdapter& one : options.adapters) {
    const std::string key = "base_model.model.up.lora_";
    const auto a = one.adapter.tensors.at(key + "A.weight").to_f64();
    const auto b = one.adapter.tensors.at(key + "B.weight").to_f64();
    for (std::size_t i = 0; i < 24; ++i)
      for (std::size_t j = 0; j < 40; ++j)
        for (std::size_t k = 0; k < 4; ++k)
          expected[i * 40 + j] += 2 * one.weight * b[i * 4 + k] * a[k * 40 + j];
  }
  const auto found = open_checkpoint(sample.output.string()).tensors.at("up.weight").to_f64();
  std::size_t equal = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    REQUIRE(std::abs(found[i] - expected[i]) <= std::abs(expected[i]) / 256 + 1e-6);
    equal += found[i] == static_cast<double>(rounded(static_cast<float>(expected[i]), DType::bf16));
  }
  // A sum in f32 lands on the other side of a rounding border once in a great while.
  REQUIRE(equal >= found.size() - 1);
}

TEST_CASE("an update that rounding swallows is reported") {
  ShardedSample sample(DType::bf16, 0.005);
  const MergeReport report = sample.run();
  REQUIRE(report.is_lossy);
  REQUIRE(report.survived.value() < 0.5);
  MergeOptions wide;
  wide.dtype = DType::f32;
  wide.force = true;
  REQUIRE(!sample.run(wide).is_lossy);
}
