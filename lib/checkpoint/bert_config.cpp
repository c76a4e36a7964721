#include "checkpoint/bert_config.h"

#include "checkpoint/encoder_layout.h"
#include "checkpoint/head_config.h"

namespace lora {
namespace {

std::int64_t layer_count(const ConfigFields& fields, const char* key, std::int64_t fallback) {
  return fields.integer(key, 1, 1 << 16).value_or(fallback);
}

void read_bert(BertConfig& bert, const ConfigFields& fields, const std::string& model_type) {
  bert.vocab_size = fields.extent("vocab_size").value_or(model_type == "roberta" ? 50265 : 30522);
  bert.hidden_size = fields.extent("hidden_size").value_or(768);
  bert.intermediate_size = fields.extent("intermediate_size").value_or(3072);
  bert.num_layers = layer_count(fields, "num_hidden_layers", 12);
  bert.num_heads = fields.extent("num_attention_heads").value_or(12);
  bert.token_types = fields.extent("type_vocab_size").value_or(2);
  bert.activation = fields.text("hidden_act").value_or("gelu");
  bert.layer_norm_eps = fields.number("layer_norm_eps").value_or(1e-12);
  bert.hidden_dropout = dropout_rate(fields, "hidden_dropout_prob", 0.1);
  bert.attention_dropout = dropout_rate(fields, "attention_probs_dropout_prob", 0.1);
  bert.classifier_dropout = dropout_rate(fields, "classifier_dropout", bert.hidden_dropout);
  require_whole_heads(fields, "hidden_size", bert.hidden_size, bert.num_heads);
}

void read_distilbert(BertConfig& bert, const ConfigFields& fields) {
  // Both spellings of a field are read: attribute_map of transformers' class.
  const auto extent = [&](const char* key, const char* common, std::int64_t fallback) {
    return fields.extent(key).value_or(fields.extent(common).value_or(fallback));
  };
  bert.vocab_size = fields.extent("vocab_size").value_or(30522);
  bert.hidden_size = extent("dim", "hidden_size", 768);
  bert.intermediate_size = fields.extent("hidden_dim").value_or(3072);
  bert.num_layers = layer_count(fields, "n_layers", layer_count(fields, "num_hidden_layers", 6));
  bert.num_heads = extent("n_heads", "num_attention_heads", 12);
  bert.activation = fields.text("activation").value_or("gelu");
  bert.layer_norm_eps = 1e-12;
  bert.hidden_dropout = dropout_rate(fields, "dropout", 0.1);
  bert.attention_dropout = dropout_rate(fields, "attention_dropout", 0.1);
  bert.classifier_dropout = bert.head.kind == HeadConfig::Kind::sequence_classification
                                ? dropout_rate(fields, "seq_classif_dropout", 0.2)
                                : bert.hidden_dropout;
  require_whole_heads(fields, "dim", bert.hidden_size, bert.num_heads);
}

// Tokens that a sequence may have.
std::int64_t sequence_limit(const BertConfig& bert, const ConfigFields& fields,
                            const EncoderLayout& layout) {
  if (!layout.counts_positions || !bert.pad_token_id) return bert.max_position_embeddings;
  const std::int64_t limit = bert.max_position_embeddings - *bert.pad_token_id - 1;
  if (limit < 1)
    throw fields.wrong("max_position_embeddings", std::to_string(bert.max_position_embeddings),
                       "more than " + std::to_string(*bert.pad_token_id + 1) +
                           ", where positions begin behind pad_token_id");
  return limit;
}

std::string unsupported_part(const ModelConfig& config, const ConfigFields& fields,
                             const EncoderLayout& layout, const BertConfig& bert) {
  const bool is_distilbert = layout.model_type == "distilbert";
  if (const std::string reason =
          unsupported_architecture(config, fields, layout.classes + "ForMaskedLM", true);
      !reason.empty())
    return reason;
  if (const std::string reason =
          unsupported_activation(is_distilbert ? "activation" : "hidden_act", bert.activation);
      !reason.empty())
    return reason;
  const std::string positions = fields.text("position_embedding_type").value_or("absolute");
  if (!is_distilbert && positions != "absolute")
    return "position_embedding_type \"" + positions + "\" is not supported, expected absolute";
  if (layout.counts_positions && !bert.pad_token_id)
    return "pad_token_id null is not supported: positions are counted from it";
  return {};
}

}  // namespace

void parse_bert(ModelConfig& config, const std::string& context) {
  const ConfigFields fields(config.document, context);
  const EncoderLayout& layout = *find_encoder_layout(config.model_type);
  BertConfig bert;
  bert.head = parse_head(config, fields);
  if (layout.model_type == "distilbert")
    read_distilbert(bert, fields);
  else
    read_bert(bert, fields, layout.model_type);
  bert.max_position_embeddings = fields.extent("max_position_embeddings").value_or(512);
  bert.tie_word_embeddings = config.tie_word_embeddings;
  bert.pad_token_id = layout.counts_positions ? 1 : 0;
  if (fields.has("pad_token_id"))
    bert.pad_token_id = fields.integer("pad_token_id", -1, bert.vocab_size - 1);
  bert.max_tokens = sequence_limit(bert, fields, layout);

  config.unsupported_reason = unsupported_part(config, fields, layout, bert);
  if (config.unsupported_reason.empty()) config.bert = std::move(bert);
}

}  // namespace lora
