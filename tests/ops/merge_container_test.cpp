// merge: torch bases stay torch files, tokens that adapters add get rows, new heads get their
// class.
#include "lora/format/torch_file.h"
#include "ops/written_merge.h"

using namespace lora;
using namespace lora::testing;

namespace {

fs::path kind(const char* name) { return golden("kinds") / "adapters" / name; }
fs::path kind_base(const char* name) { return golden("kinds") / "bases" / name; }

// The base as pytorch_model.bin, second names of one tensor sharing its storage.
fs::path torch_copy(const fs::path& base, const fs::path& folder) {
  fs::create_directories(folder);
  fs::copy_file(base / "config.json", folder / "config.json");
  const Checkpoint from = open_checkpoint(base.string());
  std::vector<std::pair<std::string, Tensor>> state(from.tensors.begin(), from.tensors.end());
  for (const auto& [alias, canonical] : from.aliases)
    state.emplace_back(alias, from.tensors.at(canonical));
  write_file_atomically(folder / "pytorch_model.bin", {},
                        [&](WritableFile& file) { write_torch_file(file, state); });
  return folder;
}

fs::path with_config(const fs::path& adapter, const fs::path& folder, const char* field,
                     Json value) {
  fs::copy(adapter, folder);
  Json config = read_json_file(folder / "adapter_config.json");
  (*config.as_object())[field] = std::move(value);
  write_file(folder / "adapter_config.json", dump_json(config));
  return folder;
}

}  // namespace

TEST_CASE("a torch base is merged into torch files, or into safetensors when asked") {
  const TempDir directory;
  const fs::path base = torch_copy(kind_base("llama_tied"), directory / "base");
  const fs::path adapter = kind("tied_together");
  const Digest root =
      merge_kind(adapter, kind_base("llama_tied"), directory / "plain").root.value();
  const MergeReport report = merge_kind(adapter, base, directory / "torch");
  REQUIRE(report.root.value() == root);
  const TorchFile written = read_torch_file(directory / "torch/pytorch_model.bin");
  std::map<std::string, std::uint64_t> storages;
  for (const TorchEntry& entry : written.entries) storages[entry.name] = entry.storage_id;
  REQUIRE(storages.size() == read_torch_file(base / "pytorch_model.bin").entries.size());
  REQUIRE(storages.at("lm_head.weight") == storages.at("model.embed_tokens.weight"));
  REQUIRE(complaints(verify_merge(adapter, base, directory / "torch")).empty());

  MergeOptions options;
  options.as_safetensors = true;
  const MergeReport other = merge_kind(adapter, base, directory / "other", options);
  REQUIRE(other.root.value() == root);
  REQUIRE(fs::exists(directory / "other/model.safetensors"));
  REQUIRE(!fs::exists(directory / "other/pytorch_model.bin"));
}

TEST_CASE("shards and index of a torch base stay; an untied head stands beside its embedding") {
  const TempDir directory;
  const fs::path base = torch_copy(kind_base("llama_tied"), directory / "base");
  JsonObject weight_map;
  std::map<std::string, std::vector<std::pair<std::string, Tensor>>> shards;
  for (const auto& [name, tensor] : open_checkpoint(base.string()).tensors) {
    const std::string file = name.find("layers") == std::string::npos
                                 ? "pytorch_model-00001-of-00002.bin"
                                 : "pytorch_model-00002-of-00002.bin";
    weight_map[name] = file;
    shards[file].emplace_back(name, tensor);
  }
  for (const auto& [file, state] : shards)
    write_file_atomically(base / file, {},
                          [&](WritableFile& out) { write_torch_file(out, state); });
  fs::remove(base / "pytorch_model.bin");
  write_file(base / "pytorch_model.bin.index.json",
             dump_json(JsonObject{{"metadata", JsonObject{}}, {"weight_map", weight_map}}));

  const MergeReport report = merge_kind(kind("tied_head_only"), base, directory / "out");
  REQUIRE(report.untied == std::vector<std::string>{"lm_head.weight"});
  const Json index = read_json_file(directory / "out/pytorch_model.bin.index.json");
  REQUIRE(*index.find("weight_map")->find("lm_head.weight")->as_string() ==
          "pytorch_model-00001-of-00002.bin");
  REQUIRE(complaints(verify_merge(kind("tied_head_only"), base, directory / "out")).empty());
}

TEST_CASE(
    "an embedding adapted under its prefix unties the head of a checkpoint without the prefix") {
  const TempDir directory;
  const fs::path base = directory / "base", adapter = directory / "adapter";
  fs::create_directories(base);
  fs::copy_file(kind_base("llama_tied") / "config.json", base / "config.json");
  TensorMap bare;
  for (const auto& [name, tensor] :
       read_safetensors(kind_base("llama_tied") / "model.safetensors").tensors)
    bare[name.starts_with("model.") ? name.substr(6) : name] = tensor;
  MergeSample::write(base / "model.safetensors", bare);
  const Tensor& table = bare.at("embed_tokens.weight");
  AdapterConfig config = sample_config();
  config.rank = 4;
  config.rank_pattern.clear();
  config.target_modules = std::vector<std::string>{"embed_tokens"};
  const std::string key = "base_model.model.model.embed_tokens.lora_embedding_";
  write_sample(adapter, config,
               {{key + "A", normal_tensor("a", {4, table.shape[0]}, 0.1)},
                {key + "B", normal_tensor("b", {table.shape[1], 4}, 0.1)}});
  const MergeReport report = merge_kind(adapter, base, directory / "out");
  REQUIRE(report.untied == std::vector<std::string>{"lm_head.weight"});
  const TensorMap merged = read_safetensors(directory / "out/model.safetensors").tensors;
  REQUIRE(std::ranges::equal(merged.at("lm_head.weight").bytes, table.bytes));
  REQUIRE(!std::ranges::equal(merged.at("embed_tokens.weight").bytes, table.bytes));
}

TEST_CASE("the merge into a bare state dict is a checkpoint by its lock") {
  MergeSample sample;
  const fs::path base = sample.directory / "bare.safetensors", out = sample.directory / "out";
  MergeSample::write(base, sample.base);
  write_sample(sample.directory / "adapter", sample.config, sample.adapter);
  const MergeReport report = merge_kind(sample.directory / "adapter", base, out);
  REQUIRE(!fs::exists(out / "config.json"));
  const Checkpoint merged = open_checkpoint(out.string());
  REQUIRE(!merged.config);
  REQUIRE(merged.tensors.size() == sample.base.size());
  REQUIRE(compute_base_lock(merged, 1).root == report.root.value());
  REQUIRE(complaints(verify_merge(sample.directory / "adapter", base, out)).empty());
  // A second merge finds the record of the first.
  const Error error = failure_of([&] { merge_kind(sample.directory / "adapter", base, out); });
  REQUIRE(error.message().find("up to date") != std::string::npos);
  fs::remove(out / kBaseLockName);
  require_error(ErrorKind::not_found, "no config.json",
                [&] { (void)open_checkpoint(out.string()); });
}

TEST_CASE("tokens that an adapter adds become rows of the merged tables") {
  const TempDir directory;
  const fs::path base = kind_base("llama_tied");
  const std::int64_t rows = open_checkpoint(base.string()).config->token_model()->vocab_size;
  // The fixture trains two tokens; here they are the first two beyond the vocabulary.
  const fs::path adapter = with_config(kind("tokens_tied"), directory / "adapter",
                                       "trainable_token_indices", JsonArray{rows, rows + 1});
  merge_kind(adapter, base, directory / "out");
  const Checkpoint out = open_checkpoint((directory / "out").string());
  const Tensor& table = out.tensors.at("model.embed_tokens.weight");
  REQUIRE(table.shape[0] == rows + 2);
  REQUIRE(out.config->token_model()->vocab_size == rows + 2);
  const Tensor wanted = open_adapter(adapter).tokens.front().rows;
  REQUIRE(
      std::ranges::equal(table.bytes.last(wanted.bytes.size()), wanted.cast(table.dtype).bytes));
  REQUIRE(complaints(verify_merge(adapter, base, directory / "out")).empty());

  const fs::path gap = with_config(kind("tokens_tied"), directory / "gap",
                                   "trainable_token_indices", JsonArray{rows, rows + 2});
  const Error error = failure_of([&] { merge_kind(gap, base, directory / "no"); });
  REQUIRE(error.kind() == ErrorKind::unsupported);
  REQUIRE(error.message().find("do not follow the rows") != std::string::npos);
}

TEST_CASE("a classifier's head that the base lacks brings its class and labels") {
  const TempDir directory;
  const Checkpoint base = open_checkpoint(kind_base("llama").string());
  const std::int64_t width = base.tensors.at("model.norm.weight").shape[0];
  AdapterConfig config = sample_config();
  config.task_type = "SEQ_CLS";
  config.rank = 1;
  config.rank_pattern.clear();
  config.target_modules = std::vector<std::string>{"q_proj"};
  config.modules_to_save = {"score"};
  config.layers_to_transform = {0};
  TensorMap tensors;
  const std::string layer = "base_model.model.model.layers.0.self_attn.q_proj.";
  const auto& q = base.tensors.at("model.layers.0.self_attn.q_proj.weight").shape;
  tensors[layer + "lora_A.weight"] = normal_tensor("a", {1, q[1]}, 0.1);
  tensors[layer + "lora_B.weight"] = normal_tensor("b", {q[0], 1}, 0.1);
  tensors["base_model.model.score.weight"] = normal_tensor("score", {3, width}, 0.1);
  write_sample(directory / "adapter", config, tensors);
  merge_kind(directory / "adapter", kind_base("llama"), directory / "out");
  const Json document = read_json_file(directory / "out/config.json");
  REQUIRE(*document.find("architectures")->as_array()->front().as_string() ==
          "LlamaForSequenceClassification");
  REQUIRE(document.find("id2label")->as_object()->size() == 3);
  REQUIRE(document.find("vocab_size")->as_int() == base.config->token_model()->vocab_size);
}
