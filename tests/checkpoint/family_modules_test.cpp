#include "lora/checkpoint/checkpoint.h"
#include "lora/format/json.h"
#include "support/testing.h"

namespace lora {
namespace {

Json goldens() {
  return read_json_file(std::filesystem::path(LORA_SOURCE_DIR) /
                        "tests/golden/checkpoint/modules.json");
}

TEST_CASE("the module trees of gpt2 and bert are those of transformers") {
  const Json trees = goldens();
  REQUIRE(trees.as_object()->size() == 5);
  for (const auto& [name, tree] : *trees.as_object()) {
    INFO(name);
    Checkpoint checkpoint;
    checkpoint.config = parse_model_config(*tree.find("config"), name);
    REQUIRE(checkpoint.config->unsupported_reason.empty());
    const ModuleList modules = list_modules(checkpoint);
    const JsonArray& expected = *tree.find("modules")->as_array();
    REQUIRE(modules.size() == expected.size());
    for (std::size_t i = 0; i < modules.size(); ++i) {
      const JsonArray& row = *expected[i].as_array();
      INFO(*row[0].as_string());
      CHECK(modules[i].module_path == *row[0].as_string());
      CHECK(modules[i].class_name == *row[1].as_string());
      CHECK(modules[i].arguments == *row[2].as_string());
    }
  }
}

TEST_CASE("the output head of a language model is marked, a classifier has none") {
  const Json trees = goldens();
  const auto heads = [&](const char* name) {
    Checkpoint checkpoint;
    checkpoint.config = parse_model_config(*trees.find(name)->find("config"), name);
    std::vector<std::string> paths;
    for (const ModuleInfo& module : list_modules(checkpoint))
      if (module.is_output_head) paths.push_back(module.module_path);
    return paths;
  };
  CHECK(heads("gpt2") == std::vector<std::string>{"lm_head"});
  CHECK(heads("bert") == std::vector<std::string>{"cls.predictions.decoder"});
  CHECK(heads("gpt2_classifier").empty());
  CHECK(heads("bert_classifier").empty());
}

ModelConfig config_of(const std::string& text) {
  return parse_model_config(parse_json(text, "config.json"), "config.json");
}

TEST_CASE("an empty gpt2 or bert configuration has transformers' defaults") {
  const ModelConfig gpt2 = config_of(R"({"model_type": "gpt2"})");
  REQUIRE(gpt2.gpt2);
  CHECK(gpt2.gpt2->vocab_size == 50257);
  CHECK(gpt2.gpt2->intermediate_size == 3072);
  CHECK(gpt2.gpt2->activation == "gelu_new");
  CHECK(gpt2.gpt2->residual_dropout == 0.1);
  CHECK(gpt2.gpt2->tie_word_embeddings);
  CHECK(gpt2.gpt2->eos_token_ids == std::vector<std::int64_t>{50256});
  CHECK(!gpt2.gpt2->pad_token_id);
  CHECK(gpt2.token_model()->is_causal);
  CHECK(gpt2.token_model()->num_labels == 0);
  const ModelConfig bert = config_of(R"({"model_type": "bert"})");
  REQUIRE(bert.bert);
  CHECK(bert.bert->vocab_size == 30522);
  CHECK(bert.bert->layer_norm_eps == 1e-12);
  CHECK(bert.bert->classifier_dropout == 0.1);
  CHECK(bert.bert->pad_token_id == 0);
  CHECK(!bert.token_model()->is_causal);
}

TEST_CASE("a classifier's labels come from id2label, then num_labels, then two") {
  const auto labels = [](const std::string& more) {
    return config_of(
               R"({"model_type": "bert", "architectures": ["BertForSequenceClassification"])" +
               more + "}")
        .token_model()
        ->num_labels;
  };
  CHECK(labels("") == 2);
  CHECK(labels(R"(, "num_labels": 5)") == 5);
  CHECK(labels(R"(, "id2label": {"0": "A", "1": "B", "2": "C"}, "num_labels": 5)") == 3);
}

TEST_CASE("what the engine does not compute of gpt2 and bert is said with its reason") {
  const std::vector<std::pair<std::string, std::string>> cases{
      {R"({"model_type": "gpt2", "add_cross_attention": true})", "add_cross_attention"},
      {R"({"model_type": "bert", "is_decoder": true})", "is_decoder"},
      {R"({"model_type": "gpt2", "activation_function": "xielu"})",
       "activation_function \"xielu\""},
      {R"({"model_type": "bert", "hidden_act": "prelu"})", "hidden_act \"prelu\""},
      {R"({"model_type": "bert", "position_embedding_type": "relative_key"})", "relative_key"},
      {R"({"model_type": "gpt2", "architectures": ["GPT2DoubleHeadsModel"]})",
       "GPT2DoubleHeadsModel"},
      {R"({"model_type": "bert", "quantization_config": {"quant_method": "awq"}})",
       "quantised with awq"},
  };
  for (const auto& [text, reason] : cases) {
    INFO(text);
    const ModelConfig config = config_of(text);
    CHECK(!config.gpt2);
    CHECK(!config.bert);
    CHECK(config.unsupported_reason.find(reason) != std::string::npos);
  }
}

TEST_CASE("impossible numbers of gpt2 and bert are malformed") {
  const auto refuses = [](const std::string& text, const std::string& part) {
    INFO(text);
    testing::require_error(ErrorKind::malformed, part, [&] { config_of(text); });
  };
  refuses(R"({"model_type": "gpt2", "n_embd": 10, "n_head": 4})", "multiple of the 4");
  refuses(R"({"model_type": "bert", "hidden_size": 10, "num_attention_heads": 3})",
          "multiple of the 3");
  refuses(R"({"model_type": "gpt2", "resid_pdrop": 1.0})", "resid_pdrop");
  refuses(R"({"model_type": "bert", "id2label": {}})", "id2label");
}

}  // namespace
}  // namespace lora
