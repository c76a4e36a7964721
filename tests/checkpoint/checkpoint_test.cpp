#include "lora/checkpoint/checkpoint.h"

#include "checkpoint_fixture.h"

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

Checkpoint open(const std::filesystem::path& path) { return open_checkpoint(path.string()); }

void write_index(const std::filesystem::path& path, const std::string& map) {
  write_file(path, R"({"metadata": {"total_size": 1}, "weight_map": )" + map + "}");
}

}  // namespace

TEST_CASE("paths that hold no base are refused with what is missing") {
  const TempDir dir;
  require_error(ErrorKind::usage, "path is empty", [] { open_checkpoint(""); });
  require_error(ErrorKind::not_found, "no such file or directory", [&] { open(dir / "none"); });
  require_error(ErrorKind::not_found, "no config.json", [&] { open(dir.path()); });
  write_file(dir / "config.json", "{not json");
  require_error(ErrorKind::malformed, "as JSON", [&] { open(dir.path()); });
  write_file(dir / "config.json", llama_config());
  require_error(ErrorKind::not_found, "no weights in it", [&] { open(dir.path()); });
  write_safetensors_file(dir / "model.safetensors", {});
  require_error(ErrorKind::malformed, "holds no tensors", [&] { open(dir.path()); });
  write_file(dir / "x.gguf", "GGUF");
  require_error(ErrorKind::unsupported, "is a gguf file, expected a checkpoint",
                [&] { open(dir / "x.gguf"); });
  write_file(dir / "x.pth", "hello world");
  require_error(ErrorKind::malformed, "neither a zip archive nor a pickle",
                [&] { open(dir / "x.pth"); });
}

TEST_CASE("a folder of several weight files, or of shards without index, is ambiguous") {
  const TempDir dir;
  write_file(dir / "config.json", llama_config());
  write_torch(dir / "a.pth", {{"x.weight", sample({2, 2}, 1)}});
  CHECK(open(dir.path()).tensors.size() == 1);
  write_torch(dir / "optimizer.pt", {{"x.weight", sample({2, 2}, 1)}});
  CHECK(open(dir.path()).tensors.size() == 1);
  write_torch(dir / "b.pth", {{"x.weight", sample({2, 2}, 1)}});
  require_error(ErrorKind::malformed, "a.pth, b.pth", [&] { open(dir.path()); });
  std::filesystem::remove(dir / "a.pth");
  std::filesystem::remove(dir / "b.pth");
  write_safetensors_file(dir / "model-00001-of-00002.safetensors", {{"x", sample({2}, 1)}});
  require_error(ErrorKind::malformed, "without their index", [&] { open(dir.path()); });
}

TEST_CASE("every tensor of every shard is accounted for") {
  const TempDir dir;
  write_file(dir / "config.json", llama_config());
  write_safetensors_file(dir / "s1.safetensors",
                         {{"a", sample({2}, 1)}, {"stray", sample({2}, 2)}});
  write_safetensors_file(dir / "s2.safetensors", {{"b", sample({2}, 3)}});
  const auto index = dir / "model.safetensors.index.json";
  write_index(index,
              R"({"a": "s1.safetensors", "stray": "s1.safetensors", "b": "s2.safetensors"})");
  CHECK(open(dir.path()).tensors.size() == 3);
  CHECK(open(index).tensors.size() == 3);

  write_index(index, R"({"a": "s1.safetensors", "b": "s2.safetensors", "c": "s2.safetensors"})");
  require_error(ErrorKind::malformed, "not in their shard: c (of s2.safetensors)",
                [&] { open(dir.path()); });
  require_error(ErrorKind::malformed, "not where the index says: stray (in s1.safetensors)",
                [&] { open(dir.path()); });
  write_index(index, R"({"a": "s2.safetensors", "b": "s2.safetensors"})");
  require_error(ErrorKind::malformed, "a (of s2.safetensors)", [&] { open(dir.path()); });
  write_index(index, R"({"a": "s1.safetensors", "b": "s8.safetensors", "c": "s9.safetensors"})");
  require_error(ErrorKind::not_found, "s8.safetensors, s9.safetensors", [&] { open(dir.path()); });
}

TEST_CASE("a Hugging Face id is found in the local cache by refs/main") {
  const TempDir dir;
  const auto folder = dir.path() / "models--org--tiny.model";
  write_file(folder / "refs" / "main", "abc123\n");
  write_file(folder / "snapshots" / "abc123" / "config.json", llama_config());
  write_safetensors_file(folder / "snapshots" / "abc123" / "model.safetensors",
                         {{"model.norm.weight", sample({8}, 1)}});
  write_file(folder / "snapshots" / "old" / "config.json", llama_config());
  const Checkpoint found = open_checkpoint("org/tiny.model", {}, {dir / "none", dir.path()});
  CHECK(found.tensors.size() == 1);
  CHECK(found.notes.front().find("local cache") != std::string::npos);
  require_error(ErrorKind::not_found, "local Hugging Face cache",
                [&] { open_checkpoint("org/other", {}, {dir.path()}); });
  require_error(ErrorKind::not_found, "no such file",
                [&] { open_checkpoint("../models--org", {}, {dir.path()}); });
  write_file(folder / "refs" / "main", "../../evil");
  require_error(ErrorKind::malformed, "refs/main names revision",
                [&] { open_checkpoint("org/tiny.model", {}, {dir.path()}); });
  std::filesystem::remove(folder / "refs" / "main");
  require_error(ErrorKind::malformed, "found 2 snapshots",
                [&] { open_checkpoint("org/tiny.model", {}, {dir.path()}); });
}

TEST_CASE("a tied head is an alias of the embedding, absent or equal, and itself when it differs") {
  const TempDir dir;
  write_file(dir / "config.json", llama_config(R"(, "tie_word_embeddings": true)"));
  const Tensor embedding = sample({4, 2}, 1);
  const auto with = [&](const TensorMap& tensors) {
    write_safetensors_file(dir / "model.safetensors", tensors);
    return open(dir.path());
  };
  const std::string head = "lm_head.weight";
  const std::string source = "model.embed_tokens.weight";

  const Checkpoint absent = with({{source, embedding}});
  CHECK(absent.aliases.at(head) == source);
  const Checkpoint equal = with({{source, embedding}, {head, sample({4, 2}, 1)}});
  CHECK(equal.aliases.at(head) == source);
  CHECK(equal.tensors.size() == 1);
  const Checkpoint lone = with({{head, embedding}});
  CHECK(lone.aliases.at(head) == source);
  CHECK(lone.tensors.count(source) == 1);
  CHECK(compute_base_lock(equal, 1).root == compute_base_lock(absent, 1).root);
  CHECK(compute_base_lock(lone, 1).root == compute_base_lock(absent, 1).root);

  const Checkpoint different = with({{source, embedding}, {head, sample({4, 2}, 9)}});
  CHECK(different.aliases.empty());
  CHECK(different.tensors.size() == 2);
  CHECK_FALSE(different.config->decoder->tie_word_embeddings);
  REQUIRE(different.notes.size() == 1);
  CHECK(different.notes.front().find("values differ") != std::string::npos);
}

TEST_CASE("masked heads are tied by the names of their families, classifiers have none") {
  const TempDir dir;
  const auto with = [&](const std::string& type, const TensorMap& tensors) {
    write_file(dir / "config.json", "{\"model_type\": \"" + type + "\", \"vocab_size\": 4}");
    write_safetensors_file(dir / "model.safetensors", tensors);
    return open(dir.path()).aliases;
  };
  const auto aliases = [](std::map<std::string, std::string> expected) { return expected; };
  const std::string roberta = "roberta.embeddings.word_embeddings.weight";
  const std::string distilbert = "distilbert.embeddings.word_embeddings.weight";
  const Tensor table = sample({4, 2}, 1);
  const Tensor bias = sample({4}, 2);
  for (const std::string type : {"roberta", "xlm-roberta", "camembert"}) {
    INFO(type);
    CHECK(with(type, {{roberta, table}, {"lm_head.bias", bias}}) ==
          aliases({{"lm_head.decoder.weight", roberta}, {"lm_head.decoder.bias", "lm_head.bias"}}));
    CHECK(with(type, {{roberta, table}, {"classifier.bias", bias}}).empty());
  }
  CHECK(with("distilbert", {{distilbert, table}, {"vocab_projector.bias", bias}}) ==
        aliases({{"vocab_projector.weight", distilbert}}));
  CHECK(with("distilbert", {{distilbert, table}, {"pre_classifier.bias", bias}}).empty());
  // Another family's head may have a bias of its own.
  CHECK(with("phi", {{"model.embed_tokens.weight", table},
                     {"lm_head.weight", sample({4, 2}, 3)},
                     {"lm_head.bias", bias}})
            .empty());
}

TEST_CASE("the head of gpt_neox has two names, and its own values unless it is tied") {
  const TempDir dir;
  const auto with = [&](const char* tied, const TensorMap& tensors) {
    write_file(dir / "config.json",
               std::string(R"({"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"],
                               "tie_word_embeddings": )") +
                   tied + "}");
    write_safetensors_file(dir / "model.safetensors", tensors);
    return open(dir.path()).aliases["lm_head.weight"];
  };
  const std::string table = "gpt_neox.embed_in.weight";
  CHECK(with("false", {{table, sample({4, 2}, 1)}, {"embed_out.weight", sample({4, 2}, 2)}}) ==
        "embed_out.weight");
  CHECK(with("true", {{table, sample({4, 2}, 1)}}) == table);
  CHECK(with("false", {{table, sample({4, 2}, 1)}, {"lm_head.weight", sample({4, 2}, 2)}}).empty());
}

TEST_CASE("names that share a storage are one tensor under the name transformers keeps") {
  const TempDir dir;
  const Tensor shared = sample({4, 2}, 1);
  write_torch(dir / "m.pth", {{"lm_head.weight", shared}, {"model.embed_tokens.weight", shared}});
  const Checkpoint tied = open(dir / "m.pth");
  CHECK(tied.aliases.at("lm_head.weight") == "model.embed_tokens.weight");
  write_torch(dir / "n.pth",
              {{"b.weight", shared}, {"a.weight", shared}, {"c.bias", sample({4}, 2)}});
  const Checkpoint plain = open(dir / "n.pth");
  CHECK(plain.aliases.at("b.weight") == "a.weight");
  CHECK(plain.find("b.weight") == plain.find("a.weight"));
  CHECK(plain.find("d.weight") == nullptr);
}

TEST_CASE("a plain chain of Linear weights is an mlp, said aloud") {
  const TempDir dir;
  write_safetensors_file(dir / "m.safetensors", chain_tensors());
  const Checkpoint opened = open(dir / "m.safetensors");
  REQUIRE(opened.is_inferred);
  CHECK(opened.config->mlp->layers == std::vector<std::string>{"fc1", "fc2"});
  CHECK(opened.config->mlp->hidden_sizes == std::vector<std::int64_t>{10, 20, 2});
  CHECK(opened.config->mlp->activation == "relu");
  CHECK(opened.notes.front().find("mlp 10-20-2") != std::string::npos);

  OpenCheckpointOptions options;
  options.activation = "tanh";
  options.final_activation = "softmax";
  const Checkpoint told = open_checkpoint((dir / "m.safetensors").string(), options);
  CHECK(told.config->mlp->activation == "tanh");
  CHECK(told.config->mlp->final_activation == "softmax");
  options.activation = "step";
  require_error(ErrorKind::usage, "unknown activation",
                [&] { open_checkpoint((dir / "m.safetensors").string(), options); });
}

TEST_CASE("the folder's config.json counts for the weights file it means") {
  const TempDir dir;
  write_safetensors_file(dir / "base.safetensors", chain_tensors());
  write_file(dir / "config.json", R"({"model_type": "mlp", "layers": ["fc1", "fc2"],
      "hidden_sizes": [10, 20, 2], "activation": "gelu"})");
  CHECK(open(dir / "base.safetensors").config->mlp->activation == "gelu");
  write_file(dir / "config.json", R"({"some": "thing else"})");
  CHECK(open(dir / "base.safetensors").is_inferred);
  write_file(dir / "config.json", R"({"model_type": "mlp", "layers": ["fc1", "fc2"],
      "hidden_sizes": [10, 21, 2]})");
  require_error(ErrorKind::malformed, "fc1.weight is [20, 10], expected [21, 10]",
                [&] { open(dir.path()); });
}

TEST_CASE("a state dict of no known form opens without config unless one is required") {
  const TempDir dir;
  write_safetensors_file(dir / "m.safetensors", {{"conv.weight", sample({2, 2, 2}, 1)}});
  const Checkpoint opened = open(dir / "m.safetensors");
  CHECK_FALSE(opened.config);
  CHECK(opened.not_inferred_because.find("conv.weight") != std::string::npos);
  OpenCheckpointOptions options;
  options.config_required = true;
  require_error(ErrorKind::unsupported, "conv.weight",
                [&] { open_checkpoint((dir / "m.safetensors").string(), options); });
}

}  // namespace lora
