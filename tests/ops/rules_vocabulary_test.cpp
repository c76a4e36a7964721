#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

namespace {

const std::string kPrefix = "base_model.model.";
const std::string kEmbedding = kPrefix + "model.embed_tokens";

TensorMap on_embedding(std::int64_t rows = 288) {
  TensorMap tensors;
  tensors[kEmbedding + ".lora_embedding_A"] = normal_tensor("a", {4, rows}, 0.3);
  tensors[kEmbedding + ".lora_embedding_B"] = normal_tensor("b", {64, 4}, 0.3);
  return tensors;
}

TensorMap on_attention() {
  TensorMap tensors;
  for (const char* layer : {"0", "1"})
    add_pair(tensors, std::string("model.layers.") + layer + ".self_attn.q_proj", 4, 64, 64);
  return tensors;
}

void set_llama(VerifyCase& sample, bool is_tied) {
  sample.set_preset("tiny-llama", {{"tie_word_embeddings", is_tied}});
  if (!is_tied) return;
  // A head of its own would switch the tie off.
  TensorMap tensors = sample.base().tensors;
  tensors.erase("lm_head.weight");
  sample.set_base(tensors, *sample.base().config->document.as_object());
}

AdapterConfig with_tokens(JsonArray indices) {
  AdapterConfig config = config_on({"q_proj"});
  config.other["trainable_token_indices"] = JsonObject{{"embed_tokens", std::move(indices)}};
  return config;
}

TensorMap token_rows(std::int64_t count, std::int64_t width = 64) {
  TensorMap tensors = on_attention();
  tensors[kEmbedding + ".token_adapter.trainable_tokens_delta"] =
      normal_tensor("t", {count, width});
  return tensors;
}

}  // namespace

TEST_CASE("LV315: half of a tied pair is a hazard, a kept tie a note, no tie nothing") {
  VerifyCase sample;
  set_llama(sample, true);
  AdapterConfig config = config_on({"embed_tokens"});
  require_rule(sample.run(config, on_embedding()), "LV315", Severity::warning,
               "changes only LoRA on model.embed_tokens");
  config.other["ensure_weight_tying"] = true;
  require_rule(sample.run(config, on_embedding()), "LV315", Severity::note, "keeps them tied");
  forbid_rule(sample.run(config_on({"q_proj"}), on_attention()), "LV315");
  config = config_on({"q_proj"});
  config.modules_to_save = {"lm_head"};
  TensorMap tensors = on_attention();
  tensors[kPrefix + "lm_head.weight"] = normal_tensor("head", {288, 64});
  require_rule(sample.run(config, tensors), "LV315", Severity::warning, "only a copy of lm_head");
  set_llama(sample, false);
  forbid_rule(sample.run(config_on({"embed_tokens"}), on_embedding()), "LV315");
}

TEST_CASE("LV316: rows of factors, copies and token indices against the base") {
  VerifyCase sample;
  set_llama(sample, false);
  require_rule(sample.run(config_on({"embed_tokens"}), on_embedding(300)), "LV316", Severity::error,
               "lora_embedding_A expects 300 rows, base has 288");
  // One cause, one finding.
  forbid_rule(sample.run(config_on({"embed_tokens"}), on_embedding(300)), "LV309");
  forbid_rule(sample.run(config_on({"embed_tokens"}), on_embedding()), "LV316");
  AdapterConfig config = config_on({"q_proj"});
  config.modules_to_save = {"lm_head"};
  TensorMap tensors = on_attention();
  tensors[kPrefix + "lm_head.weight"] = normal_tensor("head", {290, 64});
  require_rule(sample.run(config, tensors), "LV316", Severity::error,
               "lm_head.weight expects 290 rows");
  forbid_rule(sample.run(config, tensors), "LV309");
  tensors[kPrefix + "lm_head.weight"] = normal_tensor("head", {288, 60});
  require_rule(sample.run(config, tensors), "LV309", Severity::error, "a base of another size");
  tensors[kPrefix + "lm_head.weight"] = normal_tensor("head", {290, 60});
  require_rule(sample.run(config, tensors), "LV309", Severity::error, "a base of another size");
  tensors[kPrefix + "lm_head.weight"] = normal_tensor("head", {290, 64});
  require_rule(sample.run(with_tokens({1, 288}), token_rows(2)), "LV316", Severity::error,
               "trainable_token_indices of model.embed_tokens expects 289 rows");
  forbid_rule(sample.run(with_tokens({1, 287}), token_rows(2)), "LV316");
}

TEST_CASE("LV316: tokens that an adapter adds, all of them, are a note") {
  VerifyCase sample;
  set_llama(sample, true);
  require_rule(sample.run(with_tokens({1, 289, 288}), token_rows(3)), "LV316", Severity::note,
               "the adapter adds 2 tokens");
  write_file(sample.adapter() / "added_tokens.json", R"({"<new>": 289})");
  require_rule(sample.again(), "LV316", Severity::note, "the adapter adds 2 tokens");
  write_file(sample.adapter() / "added_tokens.json", R"({"<new>": 290})");
  require_rule(sample.again(), "LV316", Severity::warning, "has 291 tokens");
  require_rule(sample.run(with_tokens({1, 289}), token_rows(2)), "LV316", Severity::error,
               "expects 290 rows");
  // A head of its own needs its own rows.
  set_llama(sample, false);
  AdapterConfig config = with_tokens({288});
  require_rule(sample.run(config, token_rows(1)), "LV316", Severity::error, "expects 289 rows");
  TensorMap both = token_rows(1);
  both[kPrefix + "lm_head.token_adapter.trainable_tokens_delta"] = normal_tensor("h", {1, 64});
  (*config.other["trainable_token_indices"].as_object())["lm_head"] = JsonArray{288};
  require_rule(sample.run(config, both), "LV316", Severity::note, "the adapter adds 1 token");
}

TEST_CASE("LV316: a tokenizer larger than the base is a warning") {
  VerifyCase sample;
  set_llama(sample, false);
  sample.run(config_on({"q_proj"}), on_attention());
  const auto tokenizer = [&](const char* name, const std::string& content) {
    write_file(sample.adapter() / name, content);
    const VerifyReport report = sample.again();
    std::filesystem::remove(sample.adapter() / name);
    return report;
  };
  require_rule(tokenizer("added_tokens.json", R"({"<new>": 288})"), "LV316", Severity::warning,
               "has 289 tokens");
  require_rule(tokenizer("tokenizer_config.json", R"({"added_tokens_decoder": {"300": {}}})"),
               "LV316", Severity::warning, "has 301 tokens");
  require_rule(tokenizer("tokenizer.json",
                         R"({"added_tokens": [{"id": 290, "content": "]\"}"}], "model": {}})"),
               "LV316", Severity::warning, "has 291 tokens");
  forbid_rule(tokenizer("added_tokens.json", R"({"<new>": 287})"), "LV316");
  forbid_rule(tokenizer("tokenizer.json", R"({"added_tokens": [{"id": 29)"), "LV316");
}

TEST_CASE("LV317: token rows and their indices must agree") {
  VerifyCase sample;
  require_rule(sample.run(with_tokens({1, 2, 3}), token_rows(2)), "LV317", Severity::error,
               "shape [2, 64] for 3 trainable_token_indices");
  require_rule(sample.run(with_tokens({1, 1}), token_rows(2)), "LV317", Severity::error,
               "more than once");
  require_rule(sample.run(with_tokens({1}), on_attention()), "LV317", Severity::error,
               "no token rows");
  AdapterConfig config = with_tokens({1, 2});
  config.modules_to_save = {"embed_tokens"};
  TensorMap both = token_rows(2);
  both[kEmbedding + ".weight"] = normal_tensor("e", {288, 64});
  require_rule(sample.run(config, both), "LV317", Severity::error, "refuses both");
  set_llama(sample, false);
  require_rule(sample.run(with_tokens({1, 2}), token_rows(2, 60)), "LV317", Severity::error,
               "60 wide, the base's 64");
  const VerifyReport fine = sample.run(with_tokens({1, 2}), token_rows(2));
  forbid_rule(fine, "LV317");
  require_healthy(fine);
}
