#include "checkpoint/module_list.h"
#include "checkpoint/module_tree.h"

namespace lora {
namespace {

constexpr const char* kHiddenDropout = "hidden_dropout_prob";

void add_embeddings(ModuleTree& tree, const ModelConfig& config) {
  const BertConfig& bert = *config.bert;
  const std::string path = "bert.embeddings";
  tree.own(path, "Embeddings");
  tree.embedding(path + ".word_embeddings", bert.vocab_size, bert.hidden_size, bert.pad_token_id);
  tree.embedding(path + ".position_embeddings", bert.max_position_embeddings, bert.hidden_size);
  tree.embedding(path + ".token_type_embeddings", bert.token_types, bert.hidden_size);
  tree.layer_norm(path + ".LayerNorm", bert.hidden_size);
  tree.dropout(path + ".dropout", config.document, kHiddenDropout, bert.hidden_dropout);
}

// The projection behind attention and behind the intermediate layer, with norm and dropout.
void add_output(ModuleTree& tree, const std::string& path, const std::string& class_suffix,
                std::int64_t in, const ModelConfig& config) {
  const BertConfig& bert = *config.bert;
  tree.own(path, class_suffix);
  tree.linear(path + ".dense", in, bert.hidden_size, true);
  tree.layer_norm(path + ".LayerNorm", bert.hidden_size);
  tree.dropout(path + ".dropout", config.document, kHiddenDropout, bert.hidden_dropout);
}

void add_layer(ModuleTree& tree, const std::string& path, const ModelConfig& config) {
  const BertConfig& bert = *config.bert;
  tree.own(path, "Layer");
  tree.own(path + ".attention", "Attention");
  const std::string attention = path + ".attention.self";
  tree.own(attention, "SelfAttention");
  for (const char* name : {".query", ".key", ".value"})
    tree.linear(attention + name, bert.hidden_size, bert.hidden_size, true);
  tree.dropout(attention + ".dropout", config.document, "attention_probs_dropout_prob",
               bert.attention_dropout);
  add_output(tree, path + ".attention.output", "SelfOutput", bert.hidden_size, config);
  tree.own(path + ".intermediate", "Intermediate");
  tree.linear(path + ".intermediate.dense", bert.hidden_size, bert.intermediate_size, true);
  tree.activation(path + ".intermediate.intermediate_act_fn", bert.activation);
  add_output(tree, path + ".output", "Output", bert.intermediate_size, config);
}

void add_classifier(ModuleTree& tree, const ModelConfig& config) {
  const BertConfig& bert = *config.bert;
  tree.own("bert.pooler", "Pooler");
  tree.linear("bert.pooler.dense", bert.hidden_size, bert.hidden_size, true);
  tree.module("bert.pooler.activation", "Tanh");
  const Json* own_rate = config.document.find("classifier_dropout");
  const bool has_own_rate = own_rate != nullptr && !own_rate->is_null();
  tree.dropout("dropout", config.document, has_own_rate ? "classifier_dropout" : kHiddenDropout,
               bert.hidden_dropout);
  tree.linear("classifier", bert.hidden_size, bert.head.num_labels, true);
}

void add_language_head(ModuleTree& tree, const ModelConfig& config) {
  const BertConfig& bert = *config.bert;
  tree.own("cls", "OnlyMLMHead");
  tree.own("cls.predictions", "LMPredictionHead");
  const std::string transform = "cls.predictions.transform";
  tree.own(transform, "PredictionHeadTransform");
  tree.linear(transform + ".dense", bert.hidden_size, bert.hidden_size, true);
  tree.activation(transform + ".transform_act_fn", bert.activation);
  tree.layer_norm(transform + ".LayerNorm", bert.hidden_size);
  tree.linear("cls.predictions.decoder", bert.hidden_size, bert.vocab_size, true).is_output_head =
      true;
}

}  // namespace

ModuleList bert_modules(const ModelConfig& config) {
  const BertConfig& bert = *config.bert;
  const bool is_classifier = bert.head.kind == HeadConfig::Kind::sequence_classification;
  ModuleTree tree("Bert", bert.layer_norm_eps);
  tree.own("", is_classifier ? "ForSequenceClassification" : "ForMaskedLM");
  tree.own("bert", "Model");
  add_embeddings(tree, config);
  tree.own("bert.encoder", "Encoder");
  tree.module("bert.encoder.layer", "ModuleList");
  for (std::int64_t i = 0; i < bert.num_layers; ++i)
    add_layer(tree, "bert.encoder.layer." + std::to_string(i), config);
  if (is_classifier)
    add_classifier(tree, config);
  else
    add_language_head(tree, config);
  return tree.take();
}

}  // namespace lora
