#include <cstring>

#include "lora/text/dataset.h"
#include "lora/text/tokenizer.h"
#include "support/testing.h"

namespace lora {
namespace {

using lora::testing::require_error;
using lora::testing::TempDir;
using Ids = std::vector<std::int64_t>;

Dataset load(std::string_view content, const DataOptions& options,
             const char* name = "data.jsonl") {
  const TempDir dir;
  testing::write_file(dir / name, content);
  return load_dataset({dir / name}, options);
}

DataOptions labelled(LabelUse use, std::int64_t count) {
  DataOptions options;
  options.vocab_size = 100;
  options.labels.use = use;
  options.labels.count = count;
  return options;
}

DataOptions valued(std::int64_t count, bool or_class = false) {
  DataOptions options = labelled(LabelUse::sequence, count);
  options.labels.may_be_class = or_class;
  options.labels.may_be_values = true;
  return options;
}

Ids classes_of(const Tensor& tensor) {
  Ids classes(static_cast<std::size_t>(tensor.numel()));
  REQUIRE(tensor.dtype == DType::i64);
  std::memcpy(classes.data(), tensor.bytes.data(), tensor.bytes.size());
  return classes;
}

TEST_CASE("labels of tokens stand at their own positions, the first among them") {
  const DataOptions options = labelled(LabelUse::each_token, 4);
  const Dataset data = load(
      "{\"input_ids\": [7, 8, 9], \"labels\": [3, -100, -100]}\n"
      "{\"input_ids\": [70, 80], \"labels\": [0, 1]}\n",
      options);
  CHECK(data.label_use == LabelUse::each_token);
  CHECK(data.supervised_tokens == 3);
  CHECK(data.example(0).labels == Ids{3, -100, -100});
  CHECK(data.example(1).labels == Ids{0, 1});
}

TEST_CASE("labels of tokens must be there, be classes, and not all be ignored") {
  const DataOptions options = labelled(LabelUse::each_token, 4);
  const auto refuses = [&](const char* part, const char* line) {
    INFO(line);
    require_error(ErrorKind::malformed, part, [&] { load(line, options); });
  };
  refuses("it has no \"labels\"", R"({"input_ids": [1, 2]})");
  refuses("it has no \"input_ids\"", R"({"text": "a b", "labels": [1, 2]})");
  refuses("label 4 is neither below 4 nor -100", R"({"input_ids": [1, 2], "labels": [1, 4]})");
  refuses("label -1 is neither", R"({"input_ids": [1, 2], "labels": [-1, 2]})");
  refuses("\"labels\" has 1 entries", R"({"input_ids": [1, 2], "labels": [1]})");
  refuses("carries a loss", R"({"input_ids": [1, 2], "labels": [-100, -100]})");
}

TEST_CASE("a sequence has one class") {
  const DataOptions options = labelled(LabelUse::sequence, 3);
  const Dataset data = load(
      "{\"input_ids\": [7, 8, 9], \"label\": 2}\n{\"input_ids\": [5], \"label\": 0}\n", options);
  CHECK(data.size() == 2);
  CHECK(data.supervised_tokens == 2);
  CHECK(data.y.dtype == DType::i64);
  CHECK(data.y.shape == Ids{2});
  CHECK(classes_of(data.y) == Ids{2, 0});
}

TEST_CASE("a sequence may have values, one alone or as many as there are labels") {
  const Dataset one = load(
      "{\"input_ids\": [7], \"label\": 2}\n{\"input_ids\": [5], \"label\": -0.5}\n"
      "{\"input_ids\": [5], \"label\": [1e3]}\n",
      valued(1));
  CHECK(one.y.shape == Ids{3, 1});
  CHECK(one.y.to_f32() == std::vector<float>{2, -0.5F, 1000});
  const Dataset several = load("{\"input_ids\": [7], \"label\": [1, 0, 0.5]}\n", valued(3, true));
  CHECK(several.y.shape == Ids{1, 3});
  CHECK(several.y.to_f32() == std::vector<float>{1, 0, 0.5F});
  const Dataset classes = load("{\"input_ids\": [7], \"label\": 1}\n", valued(3, true));
  CHECK(classes_of(classes.y) == Ids{1});
}

TEST_CASE("a label that the model has no place for is refused with what it expects") {
  const auto refuses = [&](const char* part, const char* line, const DataOptions& options) {
    INFO(line);
    require_error(ErrorKind::malformed, part, [&] { load(line, options); });
  };
  const DataOptions classes = labelled(LabelUse::sequence, 3);
  refuses("it has no \"label\"", R"({"input_ids": [1]})", classes);
  refuses("\"label\" is 3, expected a class from 0 to 2", R"({"input_ids": [1], "label": 3})",
          classes);
  refuses("\"label\" is 1.0, expected a class", R"({"input_ids": [1], "label": 1.0})", classes);
  refuses("\"label\" is string, expected a class", R"({"input_ids": [1], "label": "2"})", classes);
  refuses("\"label\" is array", R"({"input_ids": [1], "label": [1, 0, 0]})", classes);
  refuses("none of the keys text, input_ids", R"({"label": 1})", classes);
  refuses("expected a class from 0 to 2 or an array of 3 numbers",
          R"({"input_ids": [1], "label": 0.5})", valued(3, true));
  refuses("an array of 2, expected an array of 3", R"({"input_ids": [1], "label": [1, 0]})",
          valued(3));
  refuses("an array with null", R"({"input_ids": [1], "label": [1, 0, null]})", valued(3));
  refuses("expected a number", R"({"input_ids": [1], "label": 1e300})", valued(1));
  refuses("those of the lines before are classes",
          "{\"input_ids\": [1], \"label\": 1}\n{\"input_ids\": [1], \"label\": [1, 0, 1]}",
          valued(3, true));
  refuses("those of the lines before are values",
          "{\"input_ids\": [1], \"label\": [1, 0, 1]}\n{\"input_ids\": [1], \"label\": 1}",
          valued(3, true));
}

TEST_CASE("the text of a labelled sequence gets special tokens and no end token") {
  const TempDir dir;
  std::filesystem::copy_file(
      std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/text/gpt2.tokenizer.json",
      dir / "tokenizer.json");
  testing::write_file(dir / "tokenizer_config.json", R"({"eos_token": "<|endoftext|>"})");
  const Tokenizer tokenizer = Tokenizer::from_directory(dir.path());
  DataOptions options = labelled(LabelUse::sequence, 2);
  options.vocab_size = 0;
  options.tokenizer = &tokenizer;
  const Dataset data = load(R"({"text": "The quick brown fox", "label": 1})", options);
  CHECK(data.example(0).input_ids == tokenizer.encode("The quick brown fox", true));
}

TEST_CASE("plain text and completions are for models that predict the next token") {
  for (const LabelUse use : {LabelUse::each_token, LabelUse::sequence}) {
    DataOptions options = labelled(use, 3);
    require_error(ErrorKind::incompatible, "has no labels",
                  [&] { load("some text", options, "data.txt"); });
    options.loss_on = LossOn::completion;
    require_error(ErrorKind::usage, "does not predict the next token",
                  [&] { load(R"({"input_ids": [1], "label": 1})", options); });
  }
}

}  // namespace
}  // namespace lora
