#include "lora/checkpoint/grow_vocabulary.h"

#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

Checkpoint base_of(bool is_tied, const std::string& prefix = "model.") {
  Checkpoint base;
  base.config = parse_model_config(
      parse_json(std::string(R"({"model_type": "llama", "vocab_size": 2, "hidden_size": 2,
                     "intermediate_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1,
                     "max_position_embeddings": 8, "rms_norm_eps": 1e-5, "tie_word_embeddings": )") +
                     (is_tied ? "true}" : "false}"),
                 "config"),
      "config");
  base.tensors[prefix + "embed_tokens.weight"] =
      Tensor::from_f32({2, 2}, std::vector<float>{1, 2, 3, 6});
  if (is_tied)
    base.aliases["lm_head.weight"] = prefix + "embed_tokens.weight";
  else
    base.tensors["lm_head.weight"] =
        Tensor::from_f32({2, 2}, std::vector<float>{0, 1, 0, 0}).cast(DType::bf16);
  return base;
}

}  // namespace

TEST_CASE("new rows are the mean of the rows there are, in embedding and head") {
  const Checkpoint base = base_of(false);
  const Checkpoint grown = grow_vocabulary(base, 2);
  REQUIRE(grown.tensors.at("model.embed_tokens.weight").to_f32() ==
          std::vector<float>{1, 2, 3, 6, 2, 4, 2, 4});
  const Tensor& head = grown.tensors.at("lm_head.weight");
  REQUIRE(head.shape == std::vector<std::int64_t>{4, 2});
  REQUIRE(head.dtype == DType::bf16);
  REQUIRE(head.to_f32() == std::vector<float>{0, 1, 0, 0, 0, 0.5, 0, 0.5});
  REQUIRE(grown.config->token_model()->vocab_size == 4);
  REQUIRE(grown.config->document == base.config->document);
  REQUIRE(base.config->token_model()->vocab_size == 2);
  REQUIRE(base.tensors.at("lm_head.weight").shape[0] == 2);
}

TEST_CASE("a head that shares its weight grows with the embedding") {
  for (const char* prefix : {"model.", ""}) {
    const Checkpoint base = base_of(true, prefix);
    const VocabularyTables tables = vocabulary_tables(base);
    REQUIRE(tables.embedding == "model.embed_tokens");
    REQUIRE(tables.head.empty());
    REQUIRE(tables.rows == 2);
    const Checkpoint grown = grow_vocabulary(base, 1);
    REQUIRE(grown.find("lm_head.weight")->shape[0] == 3);
  }
  REQUIRE(vocabulary_tables(base_of(false)).head == "lm_head");
}

TEST_CASE("only a causal language model takes new tokens") {
  Checkpoint base;
  require_error(ErrorKind::unsupported, "expected a causal language model",
                [&] { vocabulary_tables(base); });
  base.config = parse_model_config(parse_json(R"({"model_type": "bert", "num_hidden_layers": 1,
                                        "hidden_size": 8, "num_attention_heads": 2})",
                                              "config"),
                                   "config");
  require_error(ErrorKind::unsupported, "expected a causal language model",
                [&] { grow_vocabulary(base, 1); });
}
