#include "checkpoint/module_list.h"
#include "checkpoint/module_tree.h"

namespace lora {
namespace {

constexpr const char* kDropout = "dropout";
using Head = HeadConfig::Kind;

void add_block(ModuleTree& tree, const std::string& path, const ModelConfig& config) {
  const BertConfig& bert = *config.bert;
  const std::int64_t width = bert.hidden_size;
  tree.module(path, "TransformerBlock");
  tree.own(path + ".attention", "SelfAttention");
  for (const char* name : {".q_lin", ".k_lin", ".v_lin", ".out_lin"})
    tree.linear(path + ".attention" + name, width, width, true);
  tree.dropout(path + ".attention.dropout", config.document, "attention_dropout",
               bert.attention_dropout);
  tree.layer_norm(path + ".sa_layer_norm", width);
  const std::string inner = path + ".ffn";
  tree.module(inner, "FFN");
  tree.dropout(inner + ".dropout", config.document, kDropout, bert.hidden_dropout);
  tree.linear(inner + ".lin1", width, bert.intermediate_size, true);
  tree.linear(inner + ".lin2", bert.intermediate_size, width, true);
  tree.activation(inner + ".activation", bert.activation);
  tree.layer_norm(path + ".output_layer_norm", width);
}

void add_bare_model(ModuleTree& tree, const ModelConfig& config) {
  const BertConfig& bert = *config.bert;
  const std::string embeddings = "distilbert.embeddings";
  tree.own("distilbert", "Model");
  tree.module(embeddings, "Embeddings");
  tree.embedding(embeddings + ".word_embeddings", bert.vocab_size, bert.hidden_size,
                 bert.pad_token_id);
  tree.embedding(embeddings + ".position_embeddings", bert.max_position_embeddings,
                 bert.hidden_size);
  tree.layer_norm(embeddings + ".LayerNorm", bert.hidden_size);
  tree.dropout(embeddings + ".dropout", config.document, kDropout, bert.hidden_dropout);
  tree.module("distilbert.transformer", "Transformer");
  tree.module("distilbert.transformer.layer", "ModuleList");
  for (std::int64_t i = 0; i < bert.num_layers; ++i)
    add_block(tree, "distilbert.transformer.layer." + std::to_string(i), config);
}

}  // namespace

ModuleList distilbert_modules(const ModelConfig& config) {
  const BertConfig& bert = *config.bert;
  const std::int64_t width = bert.hidden_size;
  ModuleTree tree("DistilBert", bert.layer_norm_eps);
  switch (bert.head.kind) {
    case Head::language_model:
      tree.own("", "ForMaskedLM");
      tree.activation("activation", bert.activation);
      add_bare_model(tree, config);
      tree.linear("vocab_transform", width, width, true);
      tree.layer_norm("vocab_layer_norm", width);
      tree.linear("vocab_projector", width, bert.vocab_size, true).is_output_head = true;
      tree.module("mlm_loss_fct", "CrossEntropyLoss");
      break;
    case Head::sequence_classification:
      tree.own("", "ForSequenceClassification");
      add_bare_model(tree, config);
      tree.linear("pre_classifier", width, width, true);
      tree.linear("classifier", width, bert.head.num_labels, true);
      tree.dropout("dropout", config.document, "seq_classif_dropout", bert.classifier_dropout);
      break;
    case Head::token_classification:
      tree.own("", "ForTokenClassification");
      add_bare_model(tree, config);
      tree.dropout("dropout", config.document, kDropout, bert.hidden_dropout);
      tree.linear("classifier", width, bert.head.num_labels, true);
      break;
  }
  return tree.take();
}

}  // namespace lora
