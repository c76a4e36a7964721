// Merged checkpoints that are folders: their index, and what does not belong beside the weights.
#include "ops/written_merge.h"

using namespace lora;
using namespace lora::testing;

namespace {

/// The sample's merge as a folder of two shards whose index claims `total_size`.
VerifyReport verify_sharded(MergeSample& sample, const Json& total_size,
                            const std::function<void(const fs::path&)>& change = {}) {
  sample.verify();
  const fs::path folder = sample.directory / "folder";
  fs::create_directories(folder);
  std::map<std::string, TensorMap> shards;
  JsonObject weight_map;
  for (const auto& [name, tensor] : sample.merged) {
    const std::string file = name.starts_with("norm") ? "model-00001-of-00002.safetensors"
                                                      : "model-00002-of-00002.safetensors";
    shards[file][name] = tensor;
    weight_map[name] = file;
  }
  for (const auto& [file, tensors] : shards) MergeSample::write(folder / file, tensors);
  JsonObject index{{"weight_map", std::move(weight_map)}};
  if (!total_size.is_null()) index["metadata"] = JsonObject{{"total_size", total_size}};
  write_file(folder / "model.safetensors.index.json", dump_json(index));
  write_file(folder / "config.json", R"({"model_type": "toy", "architectures": ["ToyModel"]})");
  if (change) change(folder);
  const Checkpoint base = open_checkpoint((sample.directory / "base.safetensors").string());
  const Checkpoint merged = open_checkpoint(folder.string());
  VerifyOptions options;
  options.adapter = sample.directory / "adapter";
  options.base = &base;
  options.merged = &merged;
  return lora::verify(options);
}

/// Bytes of up [24, 40], square [24, 24] and two vectors of 24, in F32.
constexpr std::int64_t kBytes = 4 * (24 * 40 + 24 * 24 + 24 + 24);

}  // namespace

TEST_CASE("LV705: an index that says another size than its tensors have") {
  MergeSample sample;
  const VerifyReport right = verify_sharded(sample, kBytes);
  require_reproduced(right);
  REQUIRE(message_of(right, "LV705").empty());
  // transformers writes it as a float now and then; a few tools leave it out.
  REQUIRE(message_of(verify_sharded(sample, static_cast<double>(kBytes)), "LV705").empty());
  REQUIRE(message_of(verify_sharded(sample, {}), "LV705").empty());

  const VerifyReport wrong = verify_sharded(sample, kBytes - 4);
  REQUIRE(wrong.has_error());
  REQUIRE(message_of(wrong, "LV705") ==
          "the index says total_size 6332, its tensors have 6336 bytes");
  REQUIRE(message_of(verify_sharded(sample, "6336"), "LV705").find("total_size string") !=
          std::string::npos);
}

TEST_CASE("LV703: an adapter_config.json in the merged folder") {
  MergeSample sample;
  const auto with = [&](const char* name) {
    return verify_sharded(sample, kBytes, [&](const fs::path& folder) {
      fs::remove(folder / kAdapterConfigName);
      write_file(folder / name, "{}");
    });
  };
  const VerifyReport report = with(kAdapterConfigName);
  REQUIRE(report.has_error());
  REQUIRE(message_of(report, "LV703").find("adapter_config.json is in the merged directory") == 0);
  REQUIRE(report.merged->is_reproduced());
  REQUIRE(message_of(with("generation_config.json"), "LV703").empty());
}

TEST_CASE("LV709: a record of another merge, or of other weights") {
  ShardedSample sample;
  sample.run();
  REQUIRE(complaints(sample.check()).empty());
  const fs::path record = sample.output / "lora_merge.json";
  const std::string right = text_of(record);

  SECTION("another adapter") {
    write_sample(sample.adapter_folder, sample.config, MergeSample::factors(2));
    const std::string found = message_of(sample.check(), "LV709");
    CHECK(found.find("lora_merge.json: it records the adapter ") == 0);
    CHECK(found.find(", this is ") != std::string::npos);
  }
  SECTION("another weight") {
    std::string text = right;
    const std::string one = "\"weight\": 1.0";
    REQUIRE(text.find(one) != std::string::npos);
    write_file(record, text.replace(text.find(one), one.size(), "\"weight\": 0.5"));
    CHECK(message_of(sample.check(), "LV709").find(" with weight 0.5, this is ") !=
          std::string::npos);
  }
  SECTION("another base") {
    sample.base["norm.bias"] = normal_tensor("other", {24}).cast(sample.dtype);
    sample.write_base();
    CHECK(message_of(sample.check(), "LV709").find("lora_merge.json: it records the base ") == 0);
  }
  SECTION("weights changed afterwards") {
    const fs::path shard = sample.output / "model-00001-of-00002.safetensors";
    std::string bytes = text_of(shard);
    bytes.back() ^= 1;
    write_file(shard, bytes);
    CHECK(message_of(sample.check(), "LV709").find("lora_merge.json: it records the result ") == 0);
  }
  SECTION("no record at all, and one that cannot be read") {
    fs::remove(record);
    CHECK(complaints(sample.check()).empty());
    write_file(record, "{}");
    CHECK(message_of(sample.check(), "LV709") == "lora_merge.json: it is no record of a merge");
    write_file(record, "{");
    CHECK(message_of(sample.check(), "LV709").find("lora_merge.json: ") == 0);
  }
}
