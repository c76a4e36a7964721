#include "golden_case.h"
//
#include "lora/base/random.h"

namespace lora {
namespace {

using engine::Batch;
using testing::GoldenCase;
using testing::relative_distance;
using testing::require_error;

using Document = std::pair<std::vector<std::int64_t>, std::vector<std::int64_t>>;

// Seven documents of up to ten tokens; some have loss on their ends only, as completions do.
std::vector<Document> documents(std::int64_t vocabulary) {
  std::vector<Document> result;
  const CounterRandom random(11, 0);
  std::uint64_t draw = 0;
  for (const std::size_t length : {7, 3, 10, 1, 5, 2, 8}) {
    Document document;
    for (std::size_t t = 0; t < length; ++t) {
      document.first.push_back(static_cast<std::int64_t>(
          random.below(draw++, static_cast<std::uint64_t>(vocabulary - 4)) + 4));
      const bool is_prompt = length % 2 == 1 && t < length / 2;
      document.second.push_back(is_prompt ? engine::kIgnoredLabel : document.first.back());
    }
    result.push_back(document);
  }
  return result;
}

// Rows of these documents, with starts where a row may hold several.
Batch batch_of(const std::vector<Document>& documents,
               const std::vector<std::vector<std::size_t>>& rows, bool is_packed) {
  Batch batch;
  batch.rows = static_cast<std::int64_t>(rows.size());
  for (const auto& row : rows) {
    std::int64_t length = 0;
    for (const std::size_t i : row) length += static_cast<std::int64_t>(documents[i].first.size());
    batch.lengths.push_back(length);
    batch.columns = std::max(batch.columns, length);
  }
  for (const auto& row : rows) {
    for (const std::size_t i : row) {
      const auto begin = static_cast<std::int32_t>(batch.input_ids.size() %
                                                   static_cast<std::size_t>(batch.columns));
      const auto& [ids, labels] = documents[i];
      batch.input_ids.insert(batch.input_ids.end(), ids.begin(), ids.end());
      batch.labels.insert(batch.labels.end(), labels.begin(), labels.end());
      if (is_packed) batch.starts.insert(batch.starts.end(), ids.size(), begin);
    }
    while (batch.input_ids.size() % static_cast<std::size_t>(batch.columns) != 0) {
      if (is_packed)
        batch.starts.push_back(static_cast<std::int32_t>(batch.input_ids.size() %
                                                         static_cast<std::size_t>(batch.columns)));
      batch.input_ids.push_back(0);
      batch.labels.push_back(engine::kIgnoredLabel);
    }
  }
  return batch;
}

const std::vector<std::vector<std::size_t>> kApart{{0}, {1}, {2}, {3}, {4}, {5}, {6}};
const std::vector<std::vector<std::size_t>> kPacked{{2, 0, 1, 3}, {6, 4, 5}};

struct Computed {
  engine::LossSum loss;
  double evaluated = 0;
  at::Tensor gradients;
};

Computed compute(const GoldenCase& golden, const Batch& batch, bool recomputes) {
  const auto model = golden.adapted(true);
  model->set_layer_checkpointing(recomputes);
  model->trainable().gradients.zero_();
  Computed result;
  result.loss = model->loss_and_gradients(batch, 0.05, {});
  result.evaluated = model->loss(batch).sum;
  result.gradients = model->trainable().gradients.clone();
  return result;
}

TEST_CASE("documents that share rows train as documents that do not", "[engine][pack]") {
  for (const std::string name :
       {"llama_plain", "llama_dora", "llama_embedding", "llama_scaled", "gpt2_plain", "gpt2_dora",
        "gpt_neox_plain", "gpt_neox_serial", "decoder_gemma2", "decoder_gemma3", "decoder_mistral",
        "decoder_qwen2_window", "decoder_phi3", "decoder_phi3_long", "decoder_mixtral"}) {
    const GoldenCase golden(name);
    const auto texts = documents(golden.base.config->token_model()->vocab_size);
    const Batch apart = batch_of(texts, kApart, false);
    const Batch packed = batch_of(texts, kPacked, true);
    REQUIRE(engine::supervised_count(packed) == engine::supervised_count(apart));
    const Computed expected = compute(golden, apart, false);
    for (const bool recomputes : {false, true}) {
      INFO(name << (recomputes ? ", layers recomputed" : ""));
      const Computed found = compute(golden, packed, recomputes);
      CHECK(found.loss.count == expected.loss.count);
      CHECK(std::abs(found.loss.sum - expected.loss.sum) < 1e-5 * expected.loss.sum);
      CHECK(std::abs(found.evaluated - expected.evaluated) < 1e-5 * expected.evaluated);
      CHECK(relative_distance(found.gradients, expected.gradients) < 1e-5);
    }
  }
}

TEST_CASE("a packed row may be longer than the model's positions, a document may not",
          "[engine][pack]") {
  GoldenCase golden("gpt2_plain");
  const std::int64_t most = golden.base.config->token_model()->max_positions;
  std::vector<Document> texts;
  for (const std::int64_t length : {most, most, most + 1}) {
    const std::vector<std::int64_t> ids(static_cast<std::size_t>(length), 7);
    texts.push_back({ids, ids});
  }
  CHECK(compute(golden, batch_of(texts, {{0, 1}}, true), false).loss.count == 2 * most - 2);
  require_error(ErrorKind::incompatible, std::to_string(most + 1) + " positions", [&] {
    compute(golden, batch_of(texts, {{0, 2}}, true), false);
  });
}

TEST_CASE("documents that overlap, and documents of an encoder, are refused", "[engine][pack]") {
  const GoldenCase golden("gpt2_plain");
  const auto texts = documents(golden.base.config->token_model()->vocab_size);
  Batch batch = batch_of(texts, kPacked, true);
  batch.starts[3] = 1;
  require_error(ErrorKind::incompatible, "do not lie one behind the other",
                [&] { compute(golden, batch, false); });
  batch.starts.pop_back();
  require_error(ErrorKind::incompatible, "do not lie one behind the other",
                [&] { compute(golden, batch, false); });
  require_error(ErrorKind::unsupported, "several documents share a row", [&] {
    compute(GoldenCase("bert_language"), batch_of(texts, kPacked, true), false);
  });
}

}  // namespace
}  // namespace lora
