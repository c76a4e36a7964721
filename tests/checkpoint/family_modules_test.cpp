#include "lora/checkpoint/checkpoint.h"
#include "lora/format/json.h"
#include "support/testing.h"

namespace lora {
namespace {

Json goldens() {
  return read_json_file(std::filesystem::path(LORA_SOURCE_DIR) /
                        "tests/golden/checkpoint/modules.json");
}

TEST_CASE("the module trees of every family are those of transformers") {
  const Json trees = goldens();
  REQUIRE(trees.as_object()->size() == 28);
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
  CHECK(heads("roberta") == std::vector<std::string>{"lm_head.decoder"});
  CHECK(heads("distilbert") == std::vector<std::string>{"vocab_projector"});
  CHECK(heads("bert_tokens").empty());
  CHECK(heads("roberta_classifier").empty());
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
  CHECK(!gpt2.token_model()->head.is_classifier());
  const ModelConfig bert = config_of(R"({"model_type": "bert"})");
  REQUIRE(bert.bert);
  CHECK(bert.bert->vocab_size == 30522);
  CHECK(bert.bert->layer_norm_eps == 1e-12);
  CHECK(bert.bert->classifier_dropout == 0.1);
  CHECK(bert.bert->pad_token_id == 0);
  CHECK(!bert.token_model()->is_causal);
  CHECK(bert.token_model()->max_positions == 512);
}

TEST_CASE("an empty configuration of roberta's families or distilbert has transformers' defaults") {
  for (const std::string type : {"roberta", "xlm-roberta", "camembert"}) {
    INFO(type);
    const ModelConfig config = config_of(R"({"model_type": ")" + type + "\"}");
    REQUIRE(config.bert);
    CHECK(config.bert->vocab_size == (type == "roberta" ? 50265 : 30522));
    CHECK(config.bert->token_types == 2);
    CHECK(config.bert->pad_token_id == 1);
    CHECK(config.bert->max_position_embeddings == 512);
    CHECK(config.token_model()->max_positions == 510);
    CHECK(config.bert->tie_word_embeddings);
  }
  const ModelConfig distilbert = config_of(R"({"model_type": "distilbert"})");
  REQUIRE(distilbert.bert);
  CHECK(distilbert.bert->num_layers == 6);
  CHECK(distilbert.bert->hidden_size == 768);
  CHECK(distilbert.bert->intermediate_size == 3072);
  CHECK(distilbert.bert->token_types == 0);
  CHECK(distilbert.bert->pad_token_id == 0);
  CHECK(distilbert.bert->layer_norm_eps == 1e-12);
  CHECK(distilbert.token_model()->max_positions == 512);
}

TEST_CASE("gpt_neox has transformers' defaults, and positions under old names and new") {
  const ModelConfig plain = config_of(R"({"model_type": "gpt_neox"})");
  REQUIRE(plain.gpt_neox);
  CHECK(plain.gpt_neox->vocab_size == 50432);
  CHECK(plain.gpt_neox->rotary_size == 24);  // a quarter of 6144 / 64
  CHECK(plain.gpt_neox->rope.theta == 10000);
  CHECK(plain.gpt_neox->has_parallel_residual);
  CHECK(plain.gpt_neox->attention_bias);
  CHECK(!plain.gpt_neox->tie_word_embeddings);
  CHECK(plain.token_model()->eos_token_ids == std::vector<std::int64_t>{2});
  const ModelConfig old = config_of(
      R"({"model_type": "gpt_neox", "rotary_pct": 0.5, "rotary_emb_base": 500, "is_decoder": false})");
  CHECK(old.gpt_neox->rotary_size == 48);
  CHECK(old.gpt_neox->rope.theta == 500);
  const ModelConfig now = config_of(
      R"({"model_type": "gpt_neox", "rotary_pct": 0.5, "rope_parameters":
          {"rope_type": "linear", "factor": 2, "partial_rotary_factor": 1, "rope_theta": 10}})");
  CHECK(now.gpt_neox->rotary_size == 96);
  CHECK(now.gpt_neox->rope.theta == 10);
  CHECK(now.gpt_neox->rope.factor == 2);
}

TEST_CASE("distilbert's fields are read under both of their names") {
  const ModelConfig config = config_of(
      R"({"model_type": "distilbert", "hidden_size": 24, "num_attention_heads": 3,
          "num_hidden_layers": 2, "n_layers": 4, "seq_classif_dropout": 0.5,
          "architectures": ["DistilBertForSequenceClassification"]})");
  REQUIRE(config.bert);
  CHECK(config.bert->hidden_size == 24);
  CHECK(config.bert->num_heads == 3);
  CHECK(config.bert->num_layers == 4);
  CHECK(config.bert->classifier_dropout == 0.5);
}

TEST_CASE("a classifier's labels come from id2label, then num_labels, then two") {
  const auto labels = [](const std::string& more) {
    return config_of(
               R"({"model_type": "bert", "architectures": ["BertForSequenceClassification"])" +
               more + "}")
        .token_model()
        ->head.num_labels;
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
      {R"({"model_type": "roberta", "is_decoder": true})", "is_decoder"},
      {R"({"model_type": "roberta", "architectures": ["RobertaForCausalLM"]})",
       "expected RobertaForMaskedLM, a sequence or a token classifier"},
      {R"({"model_type": "gpt2", "architectures": ["GPT2ForTokenClassification"]})",
       "GPT2ForTokenClassification"},
      {R"({"model_type": "xlm-roberta", "pad_token_id": null})", "pad_token_id null"},
      {R"({"model_type": "camembert", "position_embedding_type": "relative_key_query"})",
       "relative_key_query"},
      {R"({"model_type": "gpt_neox", "rope_scaling": {"type": "dynamic", "factor": 2}})",
       "rope type \"dynamic\""},
      {R"({"model_type": "gpt_neox", "architectures": ["GPTNeoXForQuestionAnswering"]})",
       "GPTNeoXForQuestionAnswering"},
      {R"({"model_type": "distilbert", "activation": "xielu"})", "activation \"xielu\""},
      {R"({"model_type": "bert", "quantization_config": {"quant_method": "awq"}})",
       "quantised with awq"},
  };
  for (const auto& [text, reason] : cases) {
    INFO(text);
    const ModelConfig config = config_of(text);
    CHECK(!config.gpt2);
    CHECK(!config.bert);
    CHECK(!config.gpt_neox);
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
  refuses(R"({"model_type": "roberta", "max_position_embeddings": 2})", "more than 2");
  refuses(R"({"model_type": "gpt_neox", "rotary_pct": 0.27})", "rotary_pct");
  refuses(R"({"model_type": "gpt_neox", "rope_scaling": {"partial_rotary_factor": 2}})",
          "rope_scaling.partial_rotary_factor");
  refuses(R"({"model_type": "gpt_neox", "rope_parameters": {"rope_type": "linear"}})", "factor");
  refuses(R"({"model_type": "distilbert", "dim": 10, "n_heads": 3})", "multiple of the 3");
}

}  // namespace
}  // namespace lora
