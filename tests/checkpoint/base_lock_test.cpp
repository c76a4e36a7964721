#include "lora/checkpoint/base_lock.h"

#include "checkpoint_fixture.h"
#include "lora/base/tensor_digest.h"

namespace lora {
namespace {

using testing::chain_tensors;
using testing::llama_config;
using testing::require_error;
using testing::sample;
using testing::TempDir;
using testing::write_file;
using testing::write_safetensors_file;
using testing::write_torch;

Digest root_at(const std::filesystem::path& path, int threads = 0) {
  return compute_base_lock(open_checkpoint(path.string()), threads).root;
}

BaseLock chain_lock() {
  Checkpoint checkpoint;
  checkpoint.tensors = chain_tensors();
  checkpoint.aliases = {{"twin.weight", "fc1.weight"}};
  return compute_base_lock(checkpoint, 2);
}

}  // namespace

TEST_CASE("the same weights have the same root as .pth, one file and shards, tied or shared") {
  const bool is_tied = GENERATE(false, true);
  const bool is_shared = GENERATE(false, true);
  const TempDir dir;
  const std::string config = llama_config(is_tied ? R"(, "tie_word_embeddings": true)"
                                                  : R"(, "tie_word_embeddings": false)");
  TensorMap tensors{{"model.embed_tokens.weight", sample({32, 8}, 1)},
                    {"model.norm.weight", sample({8}, 2)},
                    {"model.layers.0.mlp.up_proj.weight", sample({16, 8}, 3)}};
  if (!is_tied) tensors["lm_head.weight"] = sample({32, 8}, 7);

  std::vector<std::pair<std::string, Tensor>> state_dict(tensors.rbegin(), tensors.rend());
  if (is_tied)
    state_dict.insert(state_dict.begin(),
                      {"lm_head.weight", tensors.at("model.embed_tokens.weight")});
  if (is_shared)
    state_dict.insert(state_dict.begin(),
                      {"model.norm_twin.weight", tensors.at("model.norm.weight")});

  write_torch(dir / "bare.pth", state_dict);
  for (const char* name : {"one", "shards", "bin"})
    write_file(dir.path() / name / "config.json", config);
  write_torch(dir.path() / "bin" / "pytorch_model.bin", state_dict);
  write_safetensors_file(dir.path() / "one" / "model.safetensors", tensors);
  std::string map;
  for (const auto& [name, tensor] : tensors) {
    const std::string file = "shard-" + std::to_string(map.size()) + ".safetensors";
    write_safetensors_file(dir.path() / "shards" / file, {{name, tensor}});
    map += (map.empty() ? "\"" : ", \"") + name + "\": \"" + file + "\"";
  }
  write_file(dir.path() / "shards" / "model.safetensors.index.json",
             R"({"metadata": {}, "weight_map": {)" + map + "}}");

  const Digest expected = root_at(dir.path() / "one");
  CHECK(root_at(dir / "bare.pth") == expected);
  CHECK(root_at(dir / "bin") == expected);
  CHECK(root_at(dir / "shards") == expected);
  CHECK(root_at(dir.path() / "one", 1) == expected);
  CHECK(root_at(dir.path() / "one", 7) == expected);
}

TEST_CASE("the root follows its documented layout") {
  Checkpoint checkpoint;
  checkpoint.tensors = {{"b", sample({2}, 1)}, {"a", sample({3}, 2)}};
  Sha256 hash;
  hash.update(std::string_view("lora.base/1\0", 12)).update_u64(2);
  for (const char* name : {"a", "b"}) {
    const Digest digest = tensor_digest(name, checkpoint.tensors.at(name));
    hash.update(std::as_bytes(std::span(digest.bytes)));
  }
  CHECK(compute_base_lock(checkpoint, 3).root == hash.finish());
}

TEST_CASE("hashing in pieces gives the digest of hashing at once") {
  const Tensor large = sample({3'000'000}, 5);
  std::size_t seen = 0;
  const Digest pieces =
      tensor_digest("x", large, [&](std::span<const std::byte> piece) { seen += piece.size(); });
  CHECK(seen == large.bytes.size());
  CHECK(pieces == tensor_digest("x", large));
}

TEST_CASE("hashing leaves mapped weights readable") {
  const TempDir dir;
  write_safetensors_file(dir / "m.safetensors", {{"x.weight", sample({2000, 700}, 5)}});
  const Checkpoint opened = open_checkpoint((dir / "m.safetensors").string());
  REQUIRE(opened.mappings.size() == 1);
  const Digest first = compute_base_lock(opened, 1).root;
  CHECK(compute_base_lock(opened, 1).root == first);
}

TEST_CASE("a lock survives writing and reading, byte for byte") {
  const TempDir dir;
  const BaseLock lock = chain_lock();
  const std::string text = dump_base_lock(lock);
  write_file(dir / kBaseLockName, text);
  const BaseLock again = read_base_lock(dir / kBaseLockName);
  CHECK(again == lock);
  CHECK(dump_base_lock(again) == text);
  CHECK(compare(lock, again).is_empty());
}

TEST_CASE("aliases recorded beside the weights come back when they are opened") {
  const TempDir dir;
  write_file(dir / "config.json",
             R"({"model_type": "mlp", "layers": ["fc1", "fc2"], "hidden_sizes": [10, 20, 2]})");
  write_safetensors_file(dir / "model.safetensors", chain_tensors());
  write_file(dir / kBaseLockName, dump_base_lock(chain_lock()));
  CHECK(open_checkpoint(dir.path().string()).aliases.at("twin.weight") == "fc1.weight");
}

TEST_CASE("a lock that is not exactly one is refused") {
  const TempDir dir;
  const std::string good = dump_base_lock(chain_lock());
  const auto refused = [&](const std::string& from, const std::string& to,
                           const std::string& part) {
    std::string text = good;
    const auto at = text.find(from);
    REQUIRE(at != std::string::npos);
    write_file(dir / "l.json", text.replace(at, from.size(), to));
    require_error(ErrorKind::malformed, part, [&] { read_base_lock(dir / "l.json"); });
  };
  refused("base_lock/1", "base_lock/2", "schema is not lora.base_lock/1");
  refused("\"root\"", "\"rood\"", "no field \"root\"");
  refused("\"aliases\": {", "\"more\": 1, \"aliases\": {", "unknown field \"more\"");
  refused("\"F32\"", "\"F99\"", "unknown dtype");
  refused("20", "-20", "wrong shape");
  refused("\"sha256\": \"", "\"sha256\": \"z", "64 hexadecimal digits");
  refused("\"root\": \"", "\"root\": \"0", "64 hexadecimal digits");
  refused("\"twin.weight\": \"fc1.weight\"", "\"twin.weight\": \"none\"", "alias \"twin.weight\"");
  const std::string digest = chain_lock().tensors.at("fc1.bias").digest.hex();
  refused(digest, std::string(64, '0'), "root is not that of its tensors");
  require_error(ErrorKind::not_found, "no such file", [&] { read_base_lock(dir / "none.json"); });
}

TEST_CASE("comparing locks names what changed, went missing and came") {
  const BaseLock expected = chain_lock();
  Checkpoint other;
  other.tensors = chain_tensors();
  other.tensors["fc1.bias"] = sample({20}, 99);
  other.tensors.erase("fc2.bias");
  other.tensors["fc3.bias"] = sample({1}, 1);
  const LockDifference difference = compare(expected, compute_base_lock(other, 1));
  CHECK(difference.changed == std::vector<std::string>{"fc1.bias"});
  CHECK(difference.missing == std::vector<std::string>{"fc2.bias"});
  CHECK(difference.added == std::vector<std::string>{"fc3.bias"});
}

TEST_CASE("a cancelled lock stops") {
  Checkpoint checkpoint;
  checkpoint.tensors = chain_tensors();
  const CancelFlag cancel{true};
  Sinks sinks;
  sinks.cancel = &cancel;
  require_error(ErrorKind::interrupted, "", [&] { compute_base_lock(checkpoint, 1, sinks); });
}

}  // namespace lora
