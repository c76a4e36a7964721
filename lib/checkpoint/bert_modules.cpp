#include "checkpoint/encoder_layout.h"
#include "checkpoint/module_list.h"
#include "checkpoint/module_tree.h"

namespace lora {
namespace {

constexpr const char* kHiddenDropout = "hidden_dropout_prob";
using Head = HeadConfig::Kind;

class BertTree {
 public:
  explicit BertTree(const ModelConfig& config)
      : config_(config),
        bert_(*config.bert),
        layout_(*find_encoder_layout(config.model_type)),
        tree_(layout_.classes, bert_.layer_norm_eps) {}

  ModuleList build() {
    tree_.own("", bert_.head.kind == Head::language_model            ? "ForMaskedLM"
                  : bert_.head.kind == Head::sequence_classification ? "ForSequenceClassification"
                                                                     : "ForTokenClassification");
    if (layout_.has_head_first) add_head();
    add_bare_model();
    if (!layout_.has_head_first) add_head();
    return tree_.take();
  }

 private:
  void add_bare_model() {
    const std::string& root = layout_.root;
    tree_.own(root, "Model");
    add_embeddings(root + ".embeddings");
    tree_.own(root + ".encoder", "Encoder");
    tree_.module(root + ".encoder.layer", "ModuleList");
    for (std::int64_t i = 0; i < bert_.num_layers; ++i)
      add_layer(root + ".encoder.layer." + std::to_string(i));
    if (bert_.head.kind != Head::sequence_classification || layout_.root != "bert") return;
    tree_.own("bert.pooler", "Pooler");
    tree_.linear("bert.pooler.dense", bert_.hidden_size, bert_.hidden_size, true);
    tree_.module("bert.pooler.activation", "Tanh");
  }

  void add_embeddings(const std::string& path) {
    const auto add_positions = [&] {
      tree_.embedding(path + ".position_embeddings", bert_.max_position_embeddings,
                      bert_.hidden_size,
                      layout_.counts_positions ? bert_.pad_token_id : std::nullopt);
    };
    tree_.own(path, "Embeddings");
    tree_.embedding(path + ".word_embeddings", bert_.vocab_size, bert_.hidden_size,
                    bert_.pad_token_id);
    if (!layout_.counts_positions) add_positions();
    tree_.embedding(path + ".token_type_embeddings", bert_.token_types, bert_.hidden_size);
    tree_.layer_norm(path + ".LayerNorm", bert_.hidden_size);
    add_hidden_dropout(path + ".dropout");
    if (layout_.counts_positions) add_positions();
  }

  // The projection behind attention and behind the intermediate layer, with norm and dropout.
  void add_output(const std::string& path, const std::string& class_suffix, std::int64_t in) {
    tree_.own(path, class_suffix);
    tree_.linear(path + ".dense", in, bert_.hidden_size, true);
    tree_.layer_norm(path + ".LayerNorm", bert_.hidden_size);
    add_hidden_dropout(path + ".dropout");
  }

  void add_layer(const std::string& path) {
    tree_.own(path, "Layer");
    tree_.own(path + ".attention", "Attention");
    const std::string attention = path + ".attention.self";
    tree_.own(attention, "SelfAttention");
    for (const char* name : {".query", ".key", ".value"})
      tree_.linear(attention + name, bert_.hidden_size, bert_.hidden_size, true);
    tree_.dropout(attention + ".dropout", config_.document, "attention_probs_dropout_prob",
                  bert_.attention_dropout);
    add_output(path + ".attention.output", "SelfOutput", bert_.hidden_size);
    tree_.own(path + ".intermediate", "Intermediate");
    tree_.linear(path + ".intermediate.dense", bert_.hidden_size, bert_.intermediate_size, true);
    tree_.activation(path + ".intermediate.intermediate_act_fn", bert_.activation);
    add_output(path + ".output", "Output", bert_.intermediate_size);
  }

  void add_head() {
    const bool is_bert = layout_.root == "bert";
    if (bert_.head.kind == Head::language_model) {
      if (is_bert)
        add_bert_language_head();
      else
        add_roberta_language_head();
    } else if (bert_.head.kind == Head::sequence_classification && !is_bert) {
      tree_.own("classifier", "ClassificationHead");
      tree_.linear("classifier.dense", bert_.hidden_size, bert_.hidden_size, true);
      add_classifier_dropout("classifier.dropout");
      tree_.linear("classifier.out_proj", bert_.hidden_size, bert_.head.num_labels, true);
    } else {
      add_classifier_dropout("dropout");
      tree_.linear("classifier", bert_.hidden_size, bert_.head.num_labels, true);
    }
  }

  void add_bert_language_head() {
    tree_.own("cls", "OnlyMLMHead");
    tree_.own("cls.predictions", "LMPredictionHead");
    const std::string transform = "cls.predictions.transform";
    tree_.own(transform, "PredictionHeadTransform");
    tree_.linear(transform + ".dense", bert_.hidden_size, bert_.hidden_size, true);
    tree_.activation(transform + ".transform_act_fn", bert_.activation);
    tree_.layer_norm(transform + ".LayerNorm", bert_.hidden_size);
    add_decoder();
  }

  void add_roberta_language_head() {
    tree_.own("lm_head", "LMHead");
    tree_.linear("lm_head.dense", bert_.hidden_size, bert_.hidden_size, true);
    tree_.layer_norm("lm_head.layer_norm", bert_.hidden_size);
    add_decoder();
  }

  void add_decoder() {
    tree_.linear(layout_.decoder, bert_.hidden_size, bert_.vocab_size, true).is_output_head = true;
  }

  void add_hidden_dropout(const std::string& path) {
    tree_.dropout(path, config_.document, kHiddenDropout, bert_.hidden_dropout);
  }

  void add_classifier_dropout(const std::string& path) {
    const Json* own_rate = config_.document.find("classifier_dropout");
    const bool has_own_rate = own_rate != nullptr && !own_rate->is_null();
    tree_.dropout(path, config_.document, has_own_rate ? "classifier_dropout" : kHiddenDropout,
                  bert_.hidden_dropout);
  }

  const ModelConfig& config_;
  const BertConfig& bert_;
  const EncoderLayout& layout_;
  ModuleTree tree_;
};

}  // namespace

ModuleList bert_modules(const ModelConfig& config) { return BertTree(config).build(); }

}  // namespace lora
