#include "engine/train_fixtures.h"
//
#include <algorithm>

#include "engine/train/added_tokens.h"

using namespace lora;
using namespace lora::engine;
using namespace lora::testing;

namespace {

constexpr const char* kTokenizer = R"({"version": "1.0", "added_tokens": [
  {"id": 3, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
   "normalized": false, "special": true}],
  "normalizer": null, "post_processor": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                    "use_regex": true},
  "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
              "use_regex": true},
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []}})";

// A llama of `rows` tokens in a folder with a tokenizer of four.
struct Base {
  TempDir folder;
  Checkpoint checkpoint;

  explicit Base(bool is_tied, std::int64_t rows = 4) {
    write_file(folder / "base" / "tokenizer.json", kTokenizer);
    write_file(folder / "base" / "config.json",
               R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4,
                   "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1,
                   "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "vocab_size": )" +
                   std::to_string(rows) + R"(, "tie_word_embeddings": )" +
                   (is_tied ? "true}" : "false}"));
    TensorMap tensors{{"model.embed_tokens.weight", random_tensor({rows, 4}, 1)},
                      {"model.norm.weight", random_tensor({4}, 2)}};
    if (!is_tied) tensors["lm_head.weight"] = random_tensor({rows, 4}, 3);
    const std::string layer = "model.layers.0.";
    for (const char* norm : {"input_layernorm", "post_attention_layernorm"})
      tensors[layer + norm + ".weight"] = random_tensor({4}, 4);
    for (const char* linear : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                               "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"})
      tensors[layer + linear + ".weight"] = random_tensor({4, 4}, 5);
    write_safetensors(folder / "base" / "model.safetensors", tensors, &pytorch_metadata(), {});
    checkpoint = open_checkpoint((folder / "base").string());
  }
};

const Json* indices_of(const AdapterConfig& config) {
  return config.other.find("trainable_token_indices");
}

Adapter adapter_with(JsonObject tables, std::int64_t rows) {
  AdapterConfig config;
  config.target_modules = std::vector<std::string>{"q_proj"};
  TensorMap tensors;
  for (const auto& [table, indices] : tables)
    tensors["base_model.model." + std::string(table == "embed_tokens" ? "model." : "") + table +
            ".token_adapter.trainable_tokens_delta"] = random_tensor({rows, 4}, 8);
  config.other["trainable_token_indices"] = std::move(tables);
  return make_adapter(config, std::move(tensors), {});
}

std::int64_t logits_width(const Checkpoint& base, const Adapter& adapter) {
  ModelOptions options;
  options.base = &base;
  options.adapters = {&adapter};
  const Tensor ids = Tensor::from_i64({1, 2}, std::vector<std::int64_t>{1, 4});
  return make_model(options)->forward({{"input_ids", ids}}).at("logits").shape[2];
}

}  // namespace

TEST_CASE("new tokens are numbered after those of the tokenizer, and the base grows for them") {
  const Base tied(true);
  const AddedTokens tokens = add_tokens(tied.checkpoint, {"<tool>", "two words"});
  REQUIRE(tokens.ids == std::vector<std::int64_t>{4, 5});
  REQUIRE(tokens.base->find("lm_head.weight")->shape[0] == 6);
  AdapterConfig config;
  config.other["trainable_token_indices"] = JsonArray{1};
  train_added_tokens(config, tokens, tied.checkpoint);
  REQUIRE(*indices_of(config) == Json(JsonArray{1, 4, 5}));

  const Base untied(false, 5);
  const AddedTokens more = add_tokens(untied.checkpoint, {"<tool>", "two words"});
  REQUIRE(more.base->find("lm_head.weight")->shape[0] == 6);
  config.other["trainable_token_indices"] = JsonArray{1};
  train_added_tokens(config, more, untied.checkpoint);
  REQUIRE(*indices_of(config) ==
          Json(JsonObject{{"embed_tokens", JsonArray{1, 4, 5}}, {"lm_head", JsonArray{4, 5}}}));
  // Spare rows are taken before any is added.
  REQUIRE(add_tokens(Base(true, 8).checkpoint, {"<tool>"}).base == nullptr);
  REQUIRE(add_tokens(tied.checkpoint, {}).ids.empty());
}

TEST_CASE("tokens that cannot be added are refused by name") {
  const Base base(true);
  const auto refuses = [&](const char* part, std::vector<std::string> texts) {
    require_error(ErrorKind::usage, part, [&] { add_tokens(base.checkpoint, texts); });
  };
  refuses("\"a\", which the tokenizer knows as token 0", {"x", "a"});
  refuses("knows as token 3", {"<end>"});
  refuses("\"x\" twice", {"x", "x"});
  refuses("an empty token", {""});
  std::filesystem::remove(base.folder / "base" / "tokenizer.json");
  require_error(ErrorKind::not_found, "no tokenizer.json",
                [&] { add_tokens(base.checkpoint, {"x"}); });
}

TEST_CASE("a run on new tokens writes their rows, and the tokenizer that knows them") {
  for (const bool is_tied : {true, false}) {
    const Base base(is_tied);
    write_file(base.folder / "data.jsonl",
               "{\"text\": \"ab<tool>cab\"}\n{\"text\": \"c<tool>b\"}\n");
    AdapterConfig config;
    config.target_modules = std::vector<std::string>{"q_proj"};
    TrainOptions options;
    options.base_source = (base.folder / "base").string();
    options.base = &base.checkpoint;
    options.data = {base.folder / "data.jsonl"};
    options.run_dir = base.folder / "run";
    options.adapter_config = &config;
    options.add_tokens = {"<tool>"};
    options.steps = 3;
    options.lr = 0.1;
    options.save_every = 1;
    options.tool_version = "0";
    TrainSurroundings surroundings = fake_surroundings();
    surroundings.make_model = make_model;
    run_training(options, surroundings, {}, {});
    const Adapter adapter = open_adapter(options.run_dir / "adapter");
    REQUIRE(adapter.tokens.size() == (is_tied ? 1 : 2));
    REQUIRE(adapter.tokens.back().indices == std::vector<std::int64_t>{4});
    REQUIRE(logits_width(base.checkpoint, adapter) == 5);
    const std::string tokenizer = read_file(options.run_dir / "adapter" / "tokenizer.json");
    REQUIRE(tokenizer.find("\"<tool>\"") != std::string::npos);
    // It goes on from a checkpoint with the same tokens.
    TrainOptions more = options;
    more.resume = true;
    more.add_tokens.clear();
    more.adapter_config = nullptr;
    more.steps = 4;
    REQUIRE(run_training(more, surroundings, {}, {}).steps == 4);
  }
}

TEST_CASE("a base gets rows for an adapter that brings every one of them") {
  const Base tied(true);
  REQUIRE(logits_width(tied.checkpoint, adapter_with({{"embed_tokens", JsonArray{5, 4}}}, 2)) == 6);
  const Adapter gap = adapter_with({{"embed_tokens", JsonArray{5}}}, 1);
  require_error(ErrorKind::incompatible, "token 5 of model.embed_tokens, expected 0 to 3",
                [&] { logits_width(tied.checkpoint, gap); });
  const Base untied(false);
  const Adapter half = adapter_with({{"embed_tokens", JsonArray{4}}}, 1);
  require_error(ErrorKind::incompatible, "token 4 of model.embed_tokens",
                [&] { logits_width(untied.checkpoint, half); });
  const Adapter both = adapter_with({{"embed_tokens", JsonArray{4}}, {"lm_head", JsonArray{4}}}, 1);
  REQUIRE(logits_width(untied.checkpoint, both) == 5);
}
