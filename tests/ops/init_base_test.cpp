#include "lora/ops/init_base.h"

#include <cmath>

#include "lora/checkpoint/base_lock.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/format/safetensors.h"
#include "lora/format/torch_file.h"
#include "ops/init_base_plan.h"
#include "support/faulty_file_system.h"
#include "support/testing.h"

namespace lora {
namespace {

using testing::entry_count;
using testing::read_file;
using testing::require_error;
using testing::TempDir;
using testing::write_file;

InitBaseOptions preset(const std::string& name, const std::filesystem::path& output) {
  InitBaseOptions options;
  options.preset = name;
  options.output = output;
  return options;
}

InitBaseOptions import(const std::filesystem::path& from, const std::filesystem::path& output) {
  InitBaseOptions options;
  options.from = from.string();
  options.output = output;
  return options;
}

Checkpoint open(const std::filesystem::path& path) { return open_checkpoint(path.string()); }

}  // namespace

TEST_CASE("every preset gives a base that opens and whose lock holds") {
  const std::string name(GENERATE("mlp", "tiny-llama", "tiny-gpt2", "tiny-bert"));
  const TempDir dir;
  const InitBaseReport report = init_base(preset(name, dir / "base"));
  CHECK(report.files.back().name == kBaseLockName);
  CHECK(report.dtype == "F32");
  const Checkpoint base = open(dir / "base");
  const BaseLock lock = read_base_lock(dir.path() / "base" / kBaseLockName);
  CHECK(compare(lock, compute_base_lock(base, 1)).is_empty());
  CHECK(report.root == lock.root);
  CHECK(base.config->unsupported_reason.empty());
  CHECK(report.notes.empty());
}

TEST_CASE("fresh weights are the same bytes for a seed on any number of threads") {
  const TempDir dir;
  InitBaseOptions options = preset("tiny-llama", dir / "a");
  options.threads = 1;
  const Digest first = *init_base(options).root;
  options.output = dir / "b";
  options.threads = 5;
  CHECK(*init_base(options).root == first);
  CHECK(read_file(dir.path() / "a" / "model.safetensors") ==
        read_file(dir.path() / "b" / "model.safetensors"));
  options.output = dir / "c";
  options.seed = 1;
  CHECK(*init_base(options).root != first);
}

TEST_CASE("the seed 0 mlp has the same root on every machine") {
  const TempDir dir;
  CHECK(init_base(preset("mlp", dir / "base")).root->hex() ==
        "4ded4a802a88ab9c589cbefd4d007cfb473b98f4f47e0f18f4fcb197a96ecbc8");
  const Checkpoint base = open(dir / "base");
  CHECK(base.config->mlp->hidden_sizes == std::vector<std::int64_t>{10, 20, 2});
  CHECK(base.tensors.size() == 4);
  const double bound = 1 / std::sqrt(10.0);
  const auto values = base.tensors.at("fc1.weight").to_f64();
  double square = 0;
  for (const double value : values) {
    CHECK(std::fabs(value) <= bound);
    square += value * value;
  }
  // Uniform within +-b has variance b^2 / 3.
  CHECK(square / static_cast<double>(values.size()) == Approx(bound * bound / 3).epsilon(0.2));
}

TEST_CASE("fresh matrices have the configured deviation, norms are ones, biases zeros") {
  const TempDir dir;
  init_base(preset("tiny-gpt2", dir / "base"));
  const Checkpoint base = open(dir / "base");
  const auto deviation = [&](const std::string& name) {
    double square = 0;
    const auto values = base.find(name)->to_f64();
    for (const double value : values) square += value * value;
    return std::sqrt(square / static_cast<double>(values.size()));
  };
  CHECK(deviation("transformer.wte.weight") == Approx(0.02).epsilon(0.05));
  CHECK(deviation("transformer.h.1.mlp.c_proj.weight") == Approx(0.01).epsilon(0.05));
  CHECK(deviation("transformer.ln_f.weight") == 1);
  CHECK(deviation("transformer.h.0.attn.c_attn.bias") == 0);
  CHECK(base.aliases.at("lm_head.weight") == "transformer.wte.weight");
}

TEST_CASE("the dtype rounds the f32 values and is named in config.json") {
  const TempDir dir;
  init_base(preset("tiny-llama", dir / "f32"));
  InitBaseOptions options = preset("tiny-llama", dir / "bf16");
  options.dtype = DType::bf16;
  CHECK(init_base(options).dtype == "BF16");
  const Checkpoint wide = open(dir / "f32");
  const Checkpoint narrow = open(dir / "bf16");
  CHECK(narrow.config->dtype == "bfloat16");
  for (const auto& [name, tensor] : wide.tensors) {
    const Tensor rounded = tensor.cast(DType::bf16);
    CHECK(std::equal(rounded.bytes.begin(), rounded.bytes.end(),
                     narrow.tensors.at(name).bytes.begin()));
  }
  InitBaseOptions converting = import(dir / "f32", dir / "converted");
  converting.dtype = DType::bf16;
  CHECK(init_base(converting).root == compute_base_lock(narrow, 0).root);
}

TEST_CASE("containers and shards of the same weights have the same root") {
  const std::string name(GENERATE("mlp", "tiny-llama", "tiny-gpt2", "tiny-bert"));
  const TempDir dir;
  InitBaseOptions options = preset(name, dir / "one");
  const Digest root = *init_base(options).root;
  options.output = dir / "pth";
  options.container = WeightContainer::pth;
  CHECK(init_base(options).root == root);
  CHECK(compute_base_lock(open(dir.path() / "pth" / "base_model.pth"), 0).root == root);
  CHECK(init_base(import(dir / "pth", dir / "back")).root == root);
  options = import(dir / "pth", dir / "shards");
  options.max_shard_size = 1000;
  const InitBaseReport sharded = init_base(options);
  CHECK(sharded.root == root);
  CHECK(compute_base_lock(open(dir / "shards"), 0).root == root);
  if (name != "mlp") CHECK(sharded.files.size() > 5);
}

TEST_CASE("an import keeps config.json byte for byte and carries the tokenizer along") {
  const TempDir dir;
  init_base(preset("tiny-llama", dir / "source"));
  const auto source = dir.path() / "source";
  const std::string config = "  " + read_file(source / "config.json") + "\n\n";
  write_file(source / "config.json", config);
  write_file(source / "tokenizer.json", "{\"x\": 1}");
  write_file(source / "merges.txt", "a b");
  write_file(source / "unrelated.txt", "no");
  init_base(import(source, dir / "copy"));
  CHECK(read_file(dir.path() / "copy" / "config.json") == config);
  CHECK(read_file(dir.path() / "copy" / "tokenizer.json") == "{\"x\": 1}");
  CHECK(read_file(dir.path() / "copy" / "merges.txt") == "a b");
  CHECK_FALSE(std::filesystem::exists(dir.path() / "copy" / "unrelated.txt"));
}

TEST_CASE("shared names that no configuration ties come back from the lock") {
  const TempDir dir;
  const std::vector<float> values(4, 1.5F);
  const Tensor shared = Tensor::from_f32({2, 2}, values);
  write_file_atomically(dir.path() / "source" / "w.pth", {}, [&](WritableFile& file) {
    write_torch_file(file, {{"a.weight", shared}, {"b.weight", shared}});
  });
  write_file(dir.path() / "source" / "config.json", R"({"model_type": "mystery"})");
  init_base(import(dir / "source", dir / "copy"));
  CHECK(open(dir / "copy").aliases.at("b.weight") == "a.weight");
  CHECK(open(dir / "copy").tensors.size() == 1);
}

TEST_CASE("a plain chain imports as mlp with the activations asked for") {
  const TempDir dir;
  InitBaseOptions options = preset("mlp", dir / "source");
  options.container = WeightContainer::pth;
  init_base(options);
  std::filesystem::rename(dir.path() / "source" / "base_model.pth", dir / "base_model.pth");
  options = import(dir / "base_model.pth", dir / "copy");
  options.activation = "tanh";
  options.final_activation = "log_softmax";
  const InitBaseReport report = init_base(options);
  CHECK(report.notes.front().find("mlp 10-20-2 with tanh") != std::string::npos);
  const ModelConfig config = *open(dir / "copy").config;
  CHECK(config.mlp->activation == "tanh");
  CHECK(config.mlp->final_activation == "log_softmax");
  CHECK(config.mlp->layers == std::vector<std::string>{"fc1", "fc2"});
}

TEST_CASE("the dtype field changes in the dialect of the file and nothing else does") {
  CHECK(with_config_dtype(R"({"a": {"dtype": "x"}, "torch_dtype" : "float32", "b": [1, "}"]})",
                          "bfloat16") ==
        R"({"a": {"dtype": "x"}, "torch_dtype" : "bfloat16", "b": [1, "}"]})");
  CHECK(with_config_dtype(R"({"q\"": ",", "dtype":null})", "float16") ==
        R"({"q\"": ",", "dtype":"float16"})");
  CHECK(with_config_dtype(R"({"transformers_version": "4.40.0"})", "float16") ==
        "{\n  \"torch_dtype\": \"float16\",\"transformers_version\": \"4.40.0\"}");
  CHECK(with_config_dtype(R"({"x": 1})", "float16") == "{\n  \"dtype\": \"float16\",\"x\": 1}");
}

TEST_CASE("an architecture file gives weights, an unknown one a refusal") {
  const TempDir dir;
  InitBaseOptions options;
  options.arch = dir / "arch.json";
  options.output = dir / "out";
  const auto refused = [&](const std::string& text, ErrorKind kind, const std::string& part) {
    write_file(dir / "arch.json", text);
    require_error(kind, part, [&] { init_base(options); });
    CHECK_FALSE(std::filesystem::exists(dir / "out"));
  };
  require_error(ErrorKind::not_found, "no such file", [&] { init_base(options); });
  refused("nonsense", ErrorKind::malformed, "as JSON");
  refused(R"({"model_type": "t5"})", ErrorKind::unsupported, "model_type \"t5\" is not known");
  refused(R"({"model_type": "gpt2", "architectures": ["GPT2Model"]})", ErrorKind::unsupported,
          "GPT2Model");
  refused(R"({"model_type": "bert", "is_decoder": true})", ErrorKind::unsupported, "is_decoder");
  refused(R"({"model_type": "roberta", "architectures": ["RobertaForCausalLM"]})",
          ErrorKind::unsupported, "expected RobertaForMaskedLM");
  refused(R"({"model_type": "distilbert", "sinusoidal_pos_embds": true})", ErrorKind::unsupported,
          "sinusoidal_pos_embds");
  refused(R"({"model_type": "gpt_neox", "rope_scaling": {"type": "yarn", "factor": 2.0}})",
          ErrorKind::unsupported, "rope type \"yarn\"");
  refused(R"({"model_type": "gpt2", "n_embd": 10, "n_head": 3})", ErrorKind::malformed, "multiple");
  refused(R"({"model_type": "gpt2", "dtype": "int8"})", ErrorKind::unsupported, "\"int8\"");
  refused(R"({"model_type": "llama", "quantization_config": {"quant_method": "awq"}})",
          ErrorKind::unsupported, "awq");
  refused(R"({"model_type": "gpt2", "vocab_size": 2147483647, "n_embd": 2147483604})",
          ErrorKind::malformed, "too large");
  refused(R"({"model_type": "gpt2", "vocab_size": 2147483647, "n_embd": 1048572})",
          ErrorKind::output, "free");
  write_file(
      dir / "arch.json",
      R"({"model_type": "mistral", "vocab_size": 16, "hidden_size": 8, "intermediate_size": 8,
      "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "dtype": "float16"})");
  CHECK(init_base(options).dtype == "F16");
  CHECK(read_file(dir.path() / "out" / "config.json") == read_file(dir / "arch.json"));
}

TEST_CASE("fresh weights of a family have the names and shapes that transformers saves") {
  const TempDir dir;
  for (const std::string name : {"bert_language", "roberta_language", "distilbert_language",
                                 "gpt_neox_plain", "gpt_neox_serial"}) {
    INFO(name);
    const std::filesystem::path golden =
        std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/engine" / name;
    InitBaseOptions options;
    options.arch = golden / "config.json";
    options.output = dir / name;
    CHECK(init_base(options).notes.empty());
    const TensorMap expected = read_safetensors(golden / "model.safetensors").tensors;
    const TensorMap made = read_safetensors(dir.path() / name / "model.safetensors").tensors;
    CHECK(made.size() == expected.size());
    for (const auto& [tensor_name, tensor] : expected) {
      INFO(tensor_name);
      REQUIRE(made.contains(tensor_name));
      CHECK(made.at(tensor_name).shape == tensor.shape);
    }
    CHECK(open(dir / name).aliases == open(golden).aliases);
  }
}

TEST_CASE("contradicting options are usage errors") {
  const TempDir dir;
  const auto refused = [](const InitBaseOptions& options, const std::string& part) {
    require_error(ErrorKind::usage, part, [&] { init_base(options); });
  };
  InitBaseOptions options;
  options.output = dir / "out";
  refused(options, "got 0 of a preset");
  options.preset = "mlp";
  options.from = "x";
  refused(options, "got 2 of a preset");
  refused(preset("mlp", ""), "empty output path");
  refused(preset("giant", dir / "out"), "expected one of mlp, tiny-llama, tiny-gpt2, tiny-bert");
  options = preset("tiny-llama", dir / "out");
  options.hidden_sizes = {1, 2};
  refused(options, "preset mlp only");
  options = preset("tiny-llama", dir / "out");
  options.activation = "relu";
  refused(options, "an activation");
  options = preset("mlp", dir / "out");
  options.hidden_sizes = {3};
  refused(options, "at least an input and an output");
  options = preset("mlp", dir / "out");
  options.dtype = DType::i8;
  refused(options, "expected F32");
}

TEST_CASE("quantised sources are refused by name") {
  const TempDir dir;
  const auto source = dir.path() / "source";
  write_file(source / "config.json", R"({"model_type": "mystery"})");
  const std::vector<float> values(4, 1.0F);
  WriteOptions writing;
  write_safetensors(source / "model.safetensors", {{"a.qweight", Tensor::from_f32({2, 2}, values)}},
                    &pytorch_metadata(), writing);
  require_error(ErrorKind::unsupported, "tensor a.qweight belongs to quantised weights",
                [&] { init_base(import(source, dir / "out")); });
  write_file(source / "config.json",
             R"({"model_type": "mystery", "quantization_config": {"quant_method": "gptq"}})");
  require_error(ErrorKind::unsupported, "quantised with gptq",
                [&] { init_base(import(source, dir / "out")); });
}

TEST_CASE("an existing output is replaced only with force") {
  const TempDir dir;
  InitBaseOptions options = preset("mlp", dir / "base");
  init_base(options);
  const std::string before = read_file(dir.path() / "base" / "model.safetensors");
  options.seed = 9;
  require_error(ErrorKind::output, "exists already", [&] { init_base(options); });
  CHECK(read_file(dir.path() / "base" / "model.safetensors") == before);
  options.force = true;
  init_base(options);
  CHECK(read_file(dir.path() / "base" / "model.safetensors") != before);
  CHECK(entry_count(dir.path()) == 1);
}

TEST_CASE("a dry run plans and writes nothing") {
  const TempDir dir;
  InitBaseOptions options = preset("tiny-llama", dir / "base");
  options.dry_run = true;
  const InitBaseReport planned = init_base(options);
  CHECK(entry_count(dir.path()) == 0);
  CHECK_FALSE(planned.root);
  options.dry_run = false;
  const InitBaseReport written = init_base(options);
  REQUIRE(planned.files.size() == written.files.size());
  for (std::size_t i = 0; i + 1 < written.files.size(); ++i) {
    CHECK(planned.files[i].name == written.files[i].name);
    CHECK(planned.files[i].bytes == written.files[i].bytes);
  }
  CHECK(planned.parameters == written.parameters);
}

TEST_CASE("a write that fails anywhere leaves nothing behind") {
  const TempDir dir;
  InitBaseOptions options = preset("mlp", dir.path() / "new" / "base");
  const auto fails = [&](testing::FaultyFileSystem& failing) {
    options.file_system = &failing;
    require_error(ErrorKind::output, "injected", [&] { init_base(options); });
    CHECK(entry_count(dir.path()) == 0);
  };
  for (const std::uint64_t room : {0, 100, 300, 800, 1500}) {
    testing::FaultyFileSystem full;
    full.bytes_until_full = room;
    fails(full);
  }
  testing::FaultyFileSystem no_create;
  no_create.refuses_create = true;
  fails(no_create);
  testing::FaultyFileSystem no_sync;
  no_sync.refuses_sync = true;
  fails(no_sync);
  testing::FaultyFileSystem no_rename;
  no_rename.refused_rename = 1;
  fails(no_rename);
}

}  // namespace lora
