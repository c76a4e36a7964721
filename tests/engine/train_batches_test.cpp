#include "engine/train/batches.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::engine;

namespace {

Dataset three_sequences() {
  Dataset data;
  data.append({{1, 2, 3}, {kNoLabel, 2, 3}, "d.jsonl:1"});
  data.append({{4, 5}, {4, 5}, "d.jsonl:2"});
  data.append({{6, 7, 8, 9}, {kNoLabel, kNoLabel, 8, 9}, "d.jsonl:3"});
  return data;
}

}  // namespace

TEST_CASE("rows are padded on the right to the longest of the batch and carry no loss there") {
  const Dataset data = three_sequences();
  const std::vector<std::size_t> rows{1, 0};
  const Batch batch = make_batch(data, rows);
  REQUIRE(batch.rows == 2);
  REQUIRE(batch.columns == 3);
  REQUIRE(batch.input_ids == std::vector<std::int64_t>{4, 5, 0, 1, 2, 3});
  REQUIRE(batch.labels == std::vector<std::int64_t>{4, 5, -100, -100, 2, 3});
  REQUIRE(batch.lengths == std::vector<std::int64_t>{2, 3});
  REQUIRE(token_count(batch) == 5);
}

TEST_CASE("supervised positions are the labels that a shifted prediction meets") {
  const Dataset data = three_sequences();
  const std::vector<std::size_t> all{0, 1, 2};
  REQUIRE(supervised_count(make_batch(data, all)) == 2 + 1 + 2);
}

TEST_CASE("labels of a model that is not causal count from the first position on") {
  Dataset data;
  data.label_use = LabelUse::each_token;
  data.append({{1, 2}, {3, kNoLabel}, "d.jsonl:1"});
  data.append({{4}, {0}, "d.jsonl:2"});
  const std::vector<std::size_t> all{0, 1};
  const Batch batch = make_batch(data, all);
  REQUIRE(!batch.is_shifted);
  REQUIRE(supervised_count(batch) == 2);
  REQUIRE(data.supervised_tokens == 2);
}

TEST_CASE("sequences with one label bring theirs into the batch") {
  Dataset data;
  data.label_use = LabelUse::sequence;
  data.append({{1, 2}, {1, 2}, "d.jsonl:1"});
  data.append({{4}, {4}, "d.jsonl:2"});
  const std::vector<float> values{1, 2, 3, 4};
  data.y = Tensor::from_f32({2, 2}, values);
  const std::vector<std::size_t> rows{1};
  const Batch batch = make_batch(data, rows);
  REQUIRE(batch.input_ids == std::vector<std::int64_t>{4});
  REQUIRE(batch.y.shape == std::vector<std::int64_t>{1, 2});
  REQUIRE(batch.y.to_f32() == std::vector<float>{3, 4});
  REQUIRE(supervised_count(batch) == 2);
}

TEST_CASE("a table batch holds the rows asked for, in that order") {
  Dataset data;
  const std::vector<float> x{1, 2, 3, 4, 5, 6};
  const std::vector<std::int64_t> y{7, 8, 9};
  data.set_table(Tensor::from_f32({3, 2}, x), Tensor::from_i64({3}, y), "d.safetensors");
  const std::vector<std::size_t> rows{2, 0};
  const Batch batch = make_batch(data, rows);
  REQUIRE(batch.x.shape == std::vector<std::int64_t>{2, 2});
  REQUIRE(batch.x.to_f32() == std::vector<float>{5, 6, 1, 2});
  REQUIRE(batch.y.shape == std::vector<std::int64_t>{2});
  REQUIRE(supervised_count(batch) == 2);
  REQUIRE(token_count(batch) == 2);
}

TEST_CASE("the origins of a batch are named, at most eight of them") {
  Dataset data;
  for (int i = 1; i <= 10; ++i) data.append({{1, 2}, {1, 2}, "d.jsonl:" + std::to_string(i)});
  const std::vector<std::size_t> two{0, 4};
  REQUIRE(origins(data, two) == "d.jsonl:1, d.jsonl:5");
  const std::vector<std::size_t> all{0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  REQUIRE(origins(data, all).ends_with("d.jsonl:8 and 2 more"));
}
