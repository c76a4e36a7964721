#include "lora/text/dataset.h"

#include <algorithm>
#include <numeric>

#include "lora/format/safetensors.h"
#include "lora/text/chat_template.h"
#include "lora/text/tokenizer.h"
#include "support/testing.h"

namespace lora {
namespace {

using lora::testing::require_error;
using lora::testing::TempDir;
using Ids = std::vector<std::int64_t>;

const std::filesystem::path kGolden = std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/text";

// The GPT-2 style fixture with <|endoftext|> (id 0) as its end token.
struct Base {
  Base() {
    std::filesystem::copy_file(kGolden / "gpt2.tokenizer.json", dir / "tokenizer.json");
    testing::write_file(dir / "tokenizer_config.json", R"({"eos_token": "<|endoftext|>"})");
    tokenizer = Tokenizer::from_directory(dir.path());
    options.tokenizer = &*tokenizer;
  }
  std::filesystem::path file(std::string_view name, std::string_view content) const {
    testing::write_file(dir / name, content);
    return dir / name;
  }
  Dataset load(std::string_view name, std::string_view content) const {
    return load_dataset({file(name, content)}, options);
  }
  TempDir dir;
  std::optional<Tokenizer> tokenizer;
  DataOptions options;
};

TEST_CASE("a text file becomes blocks of exactly seq_len tokens and the rest is noted") {
  Base base;
  base.options.seq_len = 4;
  const std::string text = "The quick brown fox jumps over the lazy dog";
  const Ids all = base.tokenizer->encode(text);
  const Dataset data = base.load("a.txt", text);
  REQUIRE(data.is_block_stream);
  REQUIRE(data.size() == all.size() / 4);
  for (std::size_t i = 0; i < data.size(); ++i) {
    const Example example = data.example(i);
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(4 * i);
    REQUIRE(example.input_ids == Ids(begin, begin + 4));
    REQUIRE(example.labels == example.input_ids);
  }
  REQUIRE(data.example(1).origin.ends_with("a.txt, tokens 4 to 7"));
  REQUIRE(data.supervised_tokens == static_cast<std::int64_t>(data.size() * 3));
  REQUIRE(data.notes.size() == (all.size() % 4 != 0 ? 1 : 0));
  REQUIRE(data.files[0].bytes == text.size());
  REQUIRE(data.files[0].digest == sha256(std::as_bytes(std::span(text))));
}

TEST_CASE("text lines end with the end token once") {
  const Base base;
  const Dataset data =
      base.load("a.jsonl", "{\"text\": \"abc\"}\n\n{\"text\": \"abc<|endoftext|>\"}\r\n");
  REQUIRE(data.size() == 2);
  Ids want = base.tokenizer->encode("abc");
  want.push_back(0);
  REQUIRE(data.example(0).input_ids == want);
  REQUIRE(data.example(1).input_ids == want);
  REQUIRE(data.example(1).labels == want);
  REQUIRE(data.origin(1).ends_with("a.jsonl:3"));
  REQUIRE_FALSE(data.is_block_stream);
}

TEST_CASE("loss on completion masks the prompt, and a token across the seam counts") {
  Base base;
  base.options.loss_on = LossOn::completion;
  const Dataset data = base.load("a.jsonl",
                                 "{\"prompt\": \"2+2=\", \"completion\": \" lazy\"}\n"
                                 "{\"prompt\": \"the laz\", \"completion\": \"y dog\"}\n");
  Ids prompt = base.tokenizer->encode("2+2=");
  Ids want(prompt.size(), kNoLabel);
  for (const TokenId id : base.tokenizer->encode(" lazy")) want.push_back(id);
  want.push_back(0);
  REQUIRE(data.example(0).labels == want);

  const Example seam = data.example(1);
  const Ids joined = base.tokenizer->encode("the lazy dog");
  REQUIRE(Ids(seam.input_ids.begin(), seam.input_ids.end() - 1) == joined);
  const auto masked = std::count(seam.labels.begin(), seam.labels.end(), kNoLabel);
  const std::string hidden = base.tokenizer->decode(Ids(joined.begin(), joined.begin() + masked));
  REQUIRE(std::string("the laz").starts_with(hidden));
  REQUIRE(masked > 0);
}

TEST_CASE("loss on completion of messages covers the assistant turns only") {
  Base base;
  const ChatTemplate chat = ChatTemplate::parse(
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
      "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
      "t");
  const ChatTemplate marked = ChatTemplate::parse(
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{% generation %}"
      "{% if m.role == 'assistant' %}{{ m.content }}<|im_end|>{% endif %}{% endgeneration %}"
      "{% if m.role != 'assistant' %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}",
      "t");
  base.options.loss_on = LossOn::completion;
  const std::string line =
      R"({"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"lazy dog"},)"
      R"({"role":"user","content":"x"},{"role":"assistant","content":"fox"}]})";
  const auto supervised = [&](const ChatTemplate& used) {
    base.options.chat_template = &used;
    const Example example = base.load("a.jsonl", line).example(0);
    REQUIRE(base.tokenizer->decode(example.input_ids, false).starts_with("<|im_start|>user\nhi"));
    Ids kept;
    std::copy_if(example.labels.begin(), example.labels.end(), std::back_inserter(kept),
                 [](std::int64_t label) { return label != kNoLabel; });
    return base.tokenizer->decode(kept, false);
  };
  REQUIRE(supervised(chat) == "lazy dog<|im_end|>\nfox<|im_end|>\n");
  REQUIRE(supervised(marked) == "lazy dog<|im_end|>fox<|im_end|>");
}

TEST_CASE("input_ids need no tokenizer and labels of a line win") {
  DataOptions options;
  options.loss_on = LossOn::completion;
  const TempDir dir;
  testing::write_file(dir / "a.jsonl", R"({"input_ids":[5,6,7],"labels":[-100,-100,7]})");
  const Dataset data = load_dataset({dir / "a.jsonl"}, options);
  REQUIRE(data.example(0).input_ids == Ids{5, 6, 7});
  REQUIRE(data.example(0).labels == Ids{-100, -100, 7});
  REQUIRE(data.supervised_tokens == 1);
}

TEST_CASE("examples longer than seq_len are cut and reported") {
  DataOptions options;
  options.seq_len = 3;
  const TempDir dir;
  testing::write_file(dir / "a.jsonl", "{\"input_ids\":[1,2]}\n{\"input_ids\":[1,2,3,4,5]}\n");
  const Dataset data = load_dataset({dir / "a.jsonl"}, options);
  REQUIRE(data.length(1) == 3);
  REQUIRE(data.truncated.size() == 1);
  REQUIRE(data.truncated[0].origin.ends_with("a.jsonl:2"));
  REQUIRE(data.truncated[0].tokens == 5);
  REQUIRE(data.notes.size() == 1);
  REQUIRE(data.notes[0].find("1 of 2 examples") != std::string::npos);
}

TEST_CASE("every unusable line is reported, ten by name and the rest by number") {
  Base base;
  base.options.vocab_size = 100;
  base.options.max_positions = 4;
  const auto refuses = [&](std::string_view part, std::string_view content) {
    require_error(ErrorKind::malformed, part, [&] { base.load("a.jsonl", content); });
  };
  refuses("a.jsonl:2: cannot parse", "{\"input_ids\":[1,2]}\n{broken\n");
  refuses("it is array, expected an object", "[1]");
  refuses("it has none of the keys", "{\"txt\": \"a\"}");
  refuses("\"text\" is integer, expected a string", "{\"text\": 1}");
  refuses("it has no \"completion\"", "{\"prompt\": \"a\"}");
  refuses("\"completion\" is empty", R"({"prompt": "a", "completion": ""})");
  refuses("token id 100 at index 1 is not below the vocabulary size 100",
          "{\"input_ids\":[1,100]}");
  refuses("token id -1", "{\"input_ids\":[1,-1]}");
  refuses("expected an integer", "{\"input_ids\":[1,2.5]}");
  refuses("it has no tokens", "{\"input_ids\":[]}");
  refuses("\"labels\" has 1 entries", R"({"input_ids":[1,2],"labels":[1]})");
  refuses("label -7 is neither a token nor -100", R"({"input_ids":[1,2],"labels":[1,-7]})");
  refuses("carries a loss", R"({"input_ids":[1,2],"labels":[1,-100]})");
  refuses("it has 5 tokens, the model has 4 positions", "{\"input_ids\":[1,2,3,4,5]}");
  std::string many;
  for (int i = 0; i < 25; ++i) many += "{}\n";
  refuses("cannot use 25 lines", many);
  refuses("and 15 more", many);
  base.options.loss_on = LossOn::completion;
  refuses("\"text\" has no completion", "{\"text\": \"a\"}");
  refuses("without \"labels\" has no completion", "{\"input_ids\": [1,2]}");
}

TEST_CASE("what the base or the request lacks is said once") {
  Base base;
  require_error(ErrorKind::incompatible, "the base has no chat template",
                [&] { base.load("a.jsonl", R"({"messages":[{"role":"user","content":"a"}]})"); });
  base.options.max_positions = 8;
  require_error(ErrorKind::incompatible, "the model has 8 positions",
                [&] { base.load("a.txt", "text"); });
  base.options.max_positions = 0;
  require_error(ErrorKind::malformed, "expected at least one block of 512",
                [&] { base.load("a.txt", "text"); });
  require_error(ErrorKind::malformed, "is not UTF-8", [&] { base.load("a.txt", "te\xFFxt"); });
  require_error(ErrorKind::usage, "expected a name that ends in",
                [&] { base.load("a.csv", "a,b"); });
  require_error(ErrorKind::malformed, "holds no examples", [&] { base.load("a.jsonl", "\n \n"); });
  require_error(ErrorKind::usage, "no file was given", [&] { load_dataset({}, base.options); });
  require_error(ErrorKind::not_found, "nowhere.txt",
                [&] { load_dataset({base.dir / "nowhere.txt"}, base.options); });
  base.options.loss_on = LossOn::completion;
  require_error(ErrorKind::usage, "a .txt file has none", [&] { base.load("a.txt", "text"); });
  base.options = {};
  require_error(ErrorKind::incompatible, "the base has no tokenizer.json",
                [&] { base.load("a.jsonl", "{\"text\": \"a\"}"); });
}

TEST_CASE("x and y of safetensors files become rows, several files one after another") {
  const TempDir dir;
  const auto write = [&](const char* name, const Tensor& x, const Tensor& y) {
    write_safetensors(dir / name, TensorMap{{"x", x}, {"y", y}}, nullptr, {});
    return dir / name;
  };
  const std::vector<float> four{1, 2, 3, 4};
  const std::vector<std::int64_t> classes{0, 1};
  const Tensor x = Tensor::from_f32({2, 2}, four);
  const Tensor y = Tensor::from_i64({2}, classes);
  const auto a = write("a.safetensors", x, y);
  const Dataset data = load_dataset({a, a}, {});
  REQUIRE(data.is_tabular);
  REQUIRE(data.size() == 4);
  REQUIRE(data.x.shape == std::vector<std::int64_t>{4, 2});
  REQUIRE(data.x.to_f32() == std::vector<float>{1, 2, 3, 4, 1, 2, 3, 4});
  REQUIRE(data.y.shape == std::vector<std::int64_t>{4});
  require_error(ErrorKind::malformed, "y is F32 [4]", [&] {
    load_dataset({write("b.safetensors", x, Tensor::from_f32({4}, four))}, {});
  });
  require_error(ErrorKind::malformed, "x has 4 rows and y 2", [&] {
    load_dataset({write("c.safetensors", Tensor::from_f32({4, 1}, four), y)}, {});
  });
  require_error(ErrorKind::incompatible, "another shape or dtype", [&] {
    load_dataset({a, write("d.safetensors", Tensor::from_f32({2, 1}, std::span(four).first(2)), y)},
                 {});
  });
  require_error(ErrorKind::usage, "cannot be mixed", [&] { load_dataset({a, dir / "e.txt"}, {}); });
}

TEST_CASE("origins and labels come back as they were given") {
  Dataset data;
  const std::vector<std::string> origins{
      "a.jsonl:1", "a.jsonl:2", "a.jsonl:10", "b.txt",     "12",
      "c:007",     "c:0",       "",           "a.jsonl:3", "d:99999999999999999999"};
  for (std::size_t i = 0; i < origins.size(); ++i) {
    const auto id = static_cast<std::int64_t>(i);
    data.append({{id, 5}, {i == 4 ? kNoLabel : id, 5}, origins[i]});
  }
  for (std::size_t i = 0; i < origins.size(); ++i) {
    const auto id = static_cast<std::int64_t>(i);
    REQUIRE(data.origin(i) == origins[i]);
    REQUIRE(data.example(i).origin == origins[i]);
    REQUIRE(data.example(i).input_ids == std::vector<std::int64_t>{id, 5});
    REQUIRE(data.example(i).labels == std::vector<std::int64_t>{i == 4 ? kNoLabel : id, 5});
  }
}

TEST_CASE("lines keep their numbers beyond the first megabyte") {
  Base base;
  std::string text;
  for (int i = 0; i < 30'000; ++i)
    text +=
        i % 3 == 0 ? "\n" : "{\"input_ids\": [1, 2, 3], \"a\": \"" + std::string(60, 'x') + "\"}\n";
  const Dataset data = base.load("a.jsonl", text);
  REQUIRE(data.size() == 20'000);
  REQUIRE(data.origin(0).ends_with("a.jsonl:2"));
  REQUIRE(data.origin(19'999).ends_with("a.jsonl:30000"));
  require_error(ErrorKind::malformed,
                "cannot use 1 line of the data: ", [&] { base.load("a.jsonl", text + "{}\n"); });
  require_error(ErrorKind::malformed, "a.jsonl:30001: it has none of the keys",
                [&] { base.load("a.jsonl", text + "{}\n"); });
}

TEST_CASE("the order of an epoch is a permutation that depends on seed and epoch alone") {
  const auto order = epoch_order(100, 3, 7, true);
  auto sorted = order;
  std::sort(sorted.begin(), sorted.end());
  REQUIRE(sorted == epoch_order(100, 0, 0, false));
  REQUIRE(order == epoch_order(100, 3, 7, true));
  REQUIRE(order != epoch_order(100, 4, 7, true));
  REQUIRE(order != epoch_order(100, 3, 8, true));
  REQUIRE(order != sorted);
}

TEST_CASE("batches of similar length visit each example once an epoch") {
  constexpr std::size_t kSize = 1003;
  constexpr std::size_t kBatch = 8;
  std::vector<std::int64_t> lengths;
  for (std::size_t i = 0; i < kSize; ++i)
    lengths.push_back(1 + static_cast<std::int64_t>(i * 7919 % 500));
  const auto padded = [&](BatchPlan plan) {
    std::int64_t total = 0;
    for (std::uint64_t k = 0; k < 125; ++k) {
      std::int64_t longest = 0;
      for (const std::size_t i : plan.batch(k)) longest = std::max(longest, lengths[i]);
      total += longest * static_cast<std::int64_t>(kBatch);
    }
    return total;
  };
  const BatchPlan plain(kSize, kBatch, 5, true);
  BatchPlan grouped(kSize, kBatch, 5, true);
  grouped.group_by_length(lengths);
  REQUIRE(padded(plain) > 430 * 1000);
  REQUIRE(padded(grouped) < 260 * 1000);  // 250 is the mean length

  std::vector<std::vector<std::size_t>> batches;
  std::vector<std::size_t> visited;
  for (std::uint64_t k = 0; k < 380; ++k) {
    batches.push_back(grouped.batch(k));
    visited.insert(visited.end(), batches.back().begin(), batches.back().end());
  }
  for (std::size_t epoch = 0; epoch < 3; ++epoch) {
    const auto first = visited.begin() + static_cast<std::ptrdiff_t>(epoch * kSize);
    std::vector<std::size_t> seen(first, first + kSize);
    std::sort(seen.begin(), seen.end());
    REQUIRE(seen == epoch_order(kSize, 0, 0, false));
  }
  BatchPlan later(kSize, kBatch, 5, true);
  later.group_by_length(lengths);
  for (const std::uint64_t k : {377, 130, 125, 124, 60, 0}) REQUIRE(later.batch(k) == batches[k]);
  // Lengths do not run in order through a window.
  std::int64_t turns = 0;
  for (std::size_t k = 1; k + 1 < 50; ++k) {
    const auto length = [&](std::size_t i) { return lengths[batches[i].front()]; };
    turns += (length(k) > length(k - 1)) != (length(k + 1) > length(k));
  }
  REQUIRE(turns > 15);
}

TEST_CASE("a batch is a function of its number and every epoch visits each example once") {
  BatchPlan plan(10, 4, 5, true);
  std::vector<std::size_t> visited;
  for (std::uint64_t k = 0; k < 5; ++k)
    for (const std::size_t i : plan.batch(k)) visited.push_back(i);
  REQUIRE(std::vector(visited.begin(), visited.begin() + 10) == epoch_order(10, 0, 5, true));
  REQUIRE(std::vector(visited.begin() + 10, visited.end()) == epoch_order(10, 1, 5, true));
  BatchPlan later(10, 4, 5, true);
  REQUIRE(later.batch(3) == std::vector(visited.begin() + 12, visited.begin() + 16));
  REQUIRE(plan.batch(1) == std::vector(visited.begin() + 4, visited.begin() + 8));

  BatchPlan straight(3, 2, 5, false);
  REQUIRE(straight.batch(1) == std::vector<std::size_t>{2, 0});
  REQUIRE(straight.batches_for(1) == 2);
  REQUIRE(straight.batches_for(2) == 3);
  require_error(ErrorKind::usage, "data set is empty", [] { BatchPlan(0, 1, 0, true); });
  require_error(ErrorKind::usage, "batch size is 0", [] { BatchPlan(1, 0, 0, true); });
}

}  // namespace
}  // namespace lora
