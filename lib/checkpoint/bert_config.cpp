#include "checkpoint/bert_config.h"

#include "checkpoint/head_config.h"

namespace lora {

void parse_bert(ModelConfig& config, const std::string& context) {
  const ConfigFields fields(config.document, context);
  BertConfig bert;
  bert.vocab_size = fields.extent("vocab_size").value_or(30522);
  bert.hidden_size = fields.extent("hidden_size").value_or(768);
  bert.intermediate_size = fields.extent("intermediate_size").value_or(3072);
  bert.num_layers = fields.integer("num_hidden_layers", 1, 1 << 16).value_or(12);
  bert.num_heads = fields.extent("num_attention_heads").value_or(12);
  bert.max_position_embeddings = fields.extent("max_position_embeddings").value_or(512);
  bert.token_types = fields.extent("type_vocab_size").value_or(2);
  bert.activation = fields.text("hidden_act").value_or("gelu");
  bert.layer_norm_eps = fields.number("layer_norm_eps").value_or(1e-12);
  bert.hidden_dropout = dropout_rate(fields, "hidden_dropout_prob", 0.1);
  bert.attention_dropout = dropout_rate(fields, "attention_probs_dropout_prob", 0.1);
  bert.classifier_dropout = dropout_rate(fields, "classifier_dropout", bert.hidden_dropout);
  bert.tie_word_embeddings = config.tie_word_embeddings;
  bert.head = parse_head(config, fields);
  bert.pad_token_id = 0;
  if (fields.has("pad_token_id"))
    bert.pad_token_id = fields.integer("pad_token_id", -1, bert.vocab_size - 1);
  require_whole_heads(fields, "hidden_size", bert.hidden_size, bert.num_heads);

  std::string reason = unsupported_architecture(config, fields, "BertForMaskedLM");
  if (reason.empty()) reason = unsupported_activation("hidden_act", bert.activation);
  const std::string positions = fields.text("position_embedding_type").value_or("absolute");
  if (reason.empty() && positions != "absolute")
    reason = "position_embedding_type \"" + positions + "\" is not supported, expected absolute";
  if (reason.empty()) config.bert = std::move(bert);
  config.unsupported_reason = std::move(reason);
}

}  // namespace lora
