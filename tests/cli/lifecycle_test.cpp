// The whole life of an adapter on the smallest model, through the command line in process.
#include <span>

#include "lora/adapter/adapter.h"
#include "lora/adapter/manifest.h"
#include "lora/checkpoint/tokenizer_files.h"
#include "lora/format/safetensors.h"
#include "support/command_line.h"
#include "support/sample_adapter.h"

using namespace lora;
using namespace lora::testing;

namespace {

struct Lifecycle {
  TempDir directory;
  std::string path(std::string_view name) const { return (directory / name).string(); }

  Lifecycle() {
    TensorMap data;
    data["x"] = normal_tensor("x", {64, 10});
    std::vector<std::int64_t> labels(64);
    const std::vector<float> x = data["x"].to_f32();
    for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = x[10 * i] > 0 ? 1 : 0;
    data["y"] = Tensor::from_i64({64}, labels);
    write_safetensors(directory / "data.safetensors", data, nullptr, {});
    write_safetensors(directory / "input.safetensors", {{"x", normal_tensor("in", {5, 10})}},
                      nullptr, {});
    lora_ok({"init-base", "--preset", "mlp", "-o", path("base")});
  }

  std::vector<std::string> train_arguments(const std::string& run, int steps) const {
    return {"train",
            "--base",
            path("base"),
            "--data",
            path("data.safetensors"),
            "--run-dir",
            path(run),
            "--steps",
            std::to_string(steps),
            "--lr",
            "0.01",
            "--target-modules",
            "fc1,fc2",
            "--save-every",
            "5",
            "--batch-size",
            "64",
            "--json"};
  }
};

std::vector<float> output_of(const std::filesystem::path& path) {
  return read_safetensors(path).tensors.at("output").to_f32();
}

}  // namespace

TEST_CASE("init-base, train, save, load, verify, diff on an mlp") {
  Lifecycle life;
  CommandResult trained = lora_ok(life.train_arguments("run", 20));
  REQUIRE(trained.result().find("steps")->as_int() == 20);
  REQUIRE(trained.result().find("last_loss")->as_double().value() <
          trained.result().find("first_loss")->as_double().value());

  lora_ok({"save", life.path("run"), "-o", life.path("adapter"), "--base", life.path("base")});
  const CommandResult verified = lora_ok({"verify", life.path("adapter"), "--base",
                                          life.path("base"), "--outputs", "--require-proof"});
  REQUIRE(contains(verified.out, "verdict: proven"));

  const CommandResult loaded =
      lora_ok({"load", life.path("adapter"), "--base", life.path("base"), "--input",
               life.path("input.safetensors"), "--output", life.path("output.safetensors")});
  REQUIRE(output_of(life.directory / "output.safetensors").size() == 10);
  REQUIRE(contains(loaded.out, "0 trainable"));

  REQUIRE(contains(lora_ok({"diff", life.path("run"), life.path("adapter")}).out, "equal"));
  const CommandResult changed =
      lora::testing::lora({"diff", life.path("run/checkpoints/step-000015"), life.path("adapter"),
                           "--base", life.path("base"), "--outputs"});
  REQUIRE(changed.code == 1);
  REQUIRE(contains(changed.out, "2 of 2 common modules differ"));
  REQUIRE(contains(changed.out, "outputs on the same input"));
}

TEST_CASE("training records tokenizer and chat template of the base, and verify compares them") {
  Lifecycle life;
  const auto base = life.directory / "base";
  const std::string tokenizer =
      read_file(std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/text/gpt2.tokenizer.json");
  write_file(base / kTokenizerName, tokenizer);
  write_file(base / kChatTemplateName, "{{ messages[0].content }}");
  lora_ok(life.train_arguments("run", 5));
  const auto text = std::as_bytes(std::span(tokenizer));
  for (const char* place : {"run/adapter", "run/checkpoints/step-000005"}) {
    INFO(place);
    const auto manifest = read_manifest(life.directory / place);
    REQUIRE(manifest.has_value());
    REQUIRE(manifest->base_tokenizer == sha256(text));
    REQUIRE(manifest->base_chat_template == read_tokenizer_files(base).chat_template_digest());
  }
  const auto verify = [&] {
    return lora::testing::lora({"verify", life.path("run"), "--base", life.path("base")}).out;
  };
  REQUIRE(!contains(verify(), "LV508"));
  REQUIRE(!contains(verify(), "LV509"));
  write_file(base / kTokenizerName, tokenizer + "\n");
  write_file(base / kChatTemplateName, "{{ messages }}");
  REQUIRE(contains(verify(), "LV508"));
  REQUIRE(contains(verify(), "LV509"));

  // A base without them leaves them out of the record.
  std::filesystem::remove(base / kTokenizerName);
  std::filesystem::remove(base / kChatTemplateName);
  lora_ok(life.train_arguments("bare", 5));
  REQUIRE(!read_manifest(life.directory / "bare/adapter")->base_tokenizer);
  REQUIRE(!read_manifest(life.directory / "bare/adapter")->base_chat_template);
}

TEST_CASE("load prints the tree with LoRA layers, frozen unless asked otherwise") {
  Lifecycle life;
  write_sample(life.directory / "adapter", sample_config(), sample_tensors());
  const CommandResult frozen = lora_ok({"load", life.path("adapter"), "--base", life.path("base")});
  REQUIRE(contains(frozen.out, "(fc1): Linear(in_features=10, out_features=20, bias=True"));
  REQUIRE(contains(frozen.out, "[lora] A [4, 10], B [20, 4], r 4, alpha 8, scaling 2"));
  REQUIRE(contains(frozen.out, "470 frozen, 0 trainable"));
  const CommandResult trainable =
      lora_ok({"load", life.path("adapter"), "--base", life.path("base"), "--trainable"});
  REQUIRE(contains(trainable.out, "262 frozen, 208 trainable"));
}

TEST_CASE("load lists every key that does not fit and exits 4") {
  Lifecycle life;
  TensorMap tensors = sample_tensors();
  tensors["base_model.model.fc1.lora_A.weight"] = normal_tensor("a", {4, 11});
  tensors.erase("base_model.model.fc2.lora_A.weight");
  tensors.erase("base_model.model.fc2.lora_B.weight");
  write_sample(life.directory / "adapter", sample_config(), tensors);
  const CommandResult result =
      lora::testing::lora({"load", life.path("adapter"), "--base", life.path("base")});
  REQUIRE(result.code == 4);
  REQUIRE(contains(result.err, "fc1: misshaped, update [20, 11], base [20, 10]"));
  REQUIRE(contains(result.err, "fc2: missing"));
}

TEST_CASE("load refuses a base that is not the recorded one, unless told to take any") {
  Lifecycle life;
  const Checkpoint base = open_checkpoint(life.path("base"));
  write_sample(life.directory / "adapter", sample_config(), sample_tensors(), &base);
  lora_ok({"init-base", "--preset", "mlp", "--seed", "1", "-o", life.path("other")});
  const CommandResult refused =
      lora::testing::lora({"load", life.path("adapter"), "--base", life.path("other")});
  REQUIRE(refused.code == 4);
  REQUIRE(contains(refused.err, "made for another base"));
  lora_ok({"load", life.path("adapter"), "--base", life.path("other"), "--any-base"});
}

TEST_CASE("resuming gives the bytes of an uninterrupted run") {
  Lifecycle life;
  lora_ok(life.train_arguments("straight", 20));
  lora_ok(life.train_arguments("parted", 10));
  lora_ok({"train", "--run-dir", life.path("parted"), "--resume", "--steps", "20"});
  // The schedule follows the total: constant runs are equal whatever the way.
  auto constant = [&](const std::string& run, int steps) {
    auto arguments = life.train_arguments(run, steps);
    arguments.insert(arguments.end(), {"--schedule", "constant", "--warmup", "0"});
    return arguments;
  };
  lora_ok(constant("one", 20));
  lora_ok(constant("two", 10));
  lora_ok({"train", "--run-dir", life.path("two"), "--resume", "--steps", "20"});
  REQUIRE(read_file(life.directory / "one/adapter" / kAdapterWeightsName) ==
          read_file(life.directory / "two/adapter" / kAdapterWeightsName));
}

TEST_CASE("training refuses what cannot work, writes nothing, and says why") {
  Lifecycle life;
  const auto refused = [&](std::vector<std::string> extra, int code, std::string_view part) {
    std::vector<std::string> arguments{
        "train", "--base", life.path("base"), "--run-dir", life.path("bad"), "--steps", "1"};
    arguments.insert(arguments.end(), extra.begin(), extra.end());
    const CommandResult result = lora::testing::lora(arguments);
    INFO(result.err);
    REQUIRE(result.code == code);
    REQUIRE(contains(result.err, part));
    REQUIRE(!std::filesystem::exists(life.directory / "bad"));
  };
  const std::string data = life.path("data.safetensors");
  refused({"--data", data, "--target-modules", "q_proj"}, 4, "fc1");
  refused({"--data", data}, 2, "fc1");
  refused({"--data", life.path("none.jsonl"), "--target-modules", "fc1"}, 3, "none.jsonl");
  write_file(life.directory / "bad.jsonl", "{\"text\": \"a\"\n");
  refused({"--data", life.path("bad.jsonl"), "--target-modules", "fc1"}, 3, "bad.jsonl");
  refused({"--data", data, "--target-modules", "re:["}, 2, "[");
  refused({"--data", data, "--target-modules", "fc1", "--rank", "0"}, 2, "--rank");
}

TEST_CASE("verify exits 3 for damaged paths, 1 for errors, 7 when outputs cannot be compared") {
  Lifecycle life;
  write_sample(life.directory / "good", sample_config(), sample_tensors());
  AdapterConfig wrong = sample_config();
  wrong.rank = 5;
  write_sample(life.directory / "wrong", wrong, sample_tensors());
  std::filesystem::create_directories(life.directory / "empty");
  REQUIRE(lora::testing::lora({"verify", life.path("good")}).code == 0);
  REQUIRE(lora::testing::lora({"verify", life.path("wrong")}).code == 1);
  REQUIRE(lora::testing::lora({"verify", life.path("good"), "--outputs"}).code == 7);
  const CommandResult all = lora::testing::lora(
      {"verify", life.path("good"), life.path("wrong"), life.path("empty"), "--json"});
  REQUIRE(all.code == 3);
  const Json document = all.document();
  REQUIRE(document.find("result")->find("adapters")->as_array()->size() == 3);
  REQUIRE(!document.find("findings")->as_array()->empty());
}

TEST_CASE("inspect shows adapters and checkpoints without a base") {
  Lifecycle life;
  write_sample(life.directory / "adapter", sample_config(), sample_tensors());
  const CommandResult adapter = lora_ok({"inspect", life.path("adapter")});
  REQUIRE(contains(adapter.out, "r 4, alpha 8"));
  REQUIRE(contains(adapter.out, "fc1"));
  const CommandResult base = lora_ok({"inspect", life.path("base"), "--tensors"});
  REQUIRE(contains(base.out, "mlp"));
  REQUIRE(contains(base.out, "fc1.weight"));
  REQUIRE(contains(base.out, "[20, 10]"));
}
