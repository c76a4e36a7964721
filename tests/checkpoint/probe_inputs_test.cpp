#include "lora/checkpoint/probe_inputs.h"

#include <cstring>

#include "support/testing.h"

namespace lora {
namespace {

Checkpoint with_config(JsonObject document) {
  Checkpoint base;
  base.path = "somewhere";
  base.config = parse_model_config(std::move(document), "config.json");
  return base;
}

TEST_CASE("the probe input of a token model stays below its vocabulary and positions") {
  const auto ids = [](std::int64_t positions) {
    return probe_inputs(
               with_config(
                   {{"model_type", "gpt2"}, {"vocab_size", 11}, {"n_positions", positions}}))
        .at("input_ids");
  };
  const Tensor few = ids(5);
  REQUIRE(few.shape == std::vector<std::int64_t>{4, 5});
  bool differs = false;
  for (std::size_t i = 0; i < 20; ++i) {
    std::int64_t id = 0;
    std::memcpy(&id, few.bytes.data() + i * 8, 8);
    CHECK((id >= 0 && id < 11));
    differs = differs || id != 0;
  }
  CHECK(differs);
  CHECK(ids(4096).shape == std::vector<std::int64_t>{4, 16});
}

TEST_CASE("the probe input fits a classifier without padding and positions behind padding's id") {
  const auto shape = [](JsonObject document) {
    return probe_inputs(with_config(std::move(document))).at("input_ids").shape;
  };
  const JsonArray classifier{"GPTNeoXForSequenceClassification"};
  CHECK(shape({{"model_type", "gpt_neox"}, {"architectures", classifier}}).front() == 1);
  CHECK(shape({{"model_type", "gpt_neox"}, {"architectures", classifier}, {"pad_token_id", 3}})
            .front() == 4);
  CHECK(
      shape({{"model_type", "gpt2"}, {"architectures", JsonArray{"GPT2ForSequenceClassification"}}})
          .front() == 1);
  CHECK(shape({{"model_type", "roberta"}, {"max_position_embeddings", 10}}) ==
        std::vector<std::int64_t>{4, 8});
}

TEST_CASE("a base that does not say what its inputs are cannot be probed") {
  testing::require_error(ErrorKind::unsupported, "no configuration", [] {
    Checkpoint bare;
    probe_inputs(bare);
  });
  testing::require_error(ErrorKind::unsupported, "without a vocab_size", [] {
    probe_inputs(with_config({{"model_type", "clip"}}));
  });
}

}  // namespace
}  // namespace lora
