#include "checkpoint/encoder_layout.h"

#include <utility>
#include <vector>

namespace lora {
namespace {

EncoderLayout bert() {
  EncoderLayout layout;
  layout.model_type = "bert";
  layout.classes = "Bert";
  layout.root = "bert";
  layout.blocks = "encoder.layer";
  layout.query = "attention.self.query";
  layout.key = "attention.self.key";
  layout.value = "attention.self.value";
  layout.attention_out = "attention.output.dense";
  layout.attention_norm = "attention.output.LayerNorm";
  layout.up = "intermediate.dense";
  layout.down = "output.dense";
  layout.down_norm = "output.LayerNorm";
  layout.transform = "cls.predictions.transform.dense";
  layout.transform_norm = "cls.predictions.transform.LayerNorm";
  layout.decoder = "cls.predictions.decoder";
  layout.language_bias = "cls.predictions.bias";
  layout.pooler = "bert.pooler.dense";
  layout.sequence_head = "classifier";
  return layout;
}

EncoderLayout roberta(std::string model_type, std::string classes, bool has_head_first) {
  EncoderLayout layout = bert();
  layout.model_type = std::move(model_type);
  layout.classes = std::move(classes);
  layout.root = "roberta";
  layout.transform = "lm_head.dense";
  layout.transform_norm = "lm_head.layer_norm";
  layout.decoder = "lm_head.decoder";
  layout.language_bias = "lm_head.bias";
  layout.pooler = "classifier.dense";
  layout.sequence_head = "classifier.out_proj";
  layout.counts_positions = true;
  layout.has_head_first = has_head_first;
  layout.drops_before_pooler = true;
  layout.transform_activation = "gelu";
  return layout;
}

EncoderLayout distilbert() {
  EncoderLayout layout;
  layout.model_type = "distilbert";
  layout.classes = "DistilBert";
  layout.root = "distilbert";
  layout.blocks = "transformer.layer";
  layout.query = "attention.q_lin";
  layout.key = "attention.k_lin";
  layout.value = "attention.v_lin";
  layout.attention_out = "attention.out_lin";
  layout.attention_norm = "sa_layer_norm";
  layout.up = "ffn.lin1";
  layout.down = "ffn.lin2";
  layout.down_norm = "output_layer_norm";
  layout.transform = "vocab_transform";
  layout.transform_norm = "vocab_layer_norm";
  layout.decoder = "vocab_projector";
  layout.pooler = "pre_classifier";
  layout.sequence_head = "classifier";
  layout.drops_attention_output = false;
  layout.pooler_activation = "relu";
  return layout;
}

}  // namespace

const EncoderLayout* find_encoder_layout(const std::string& model_type) {
  static const std::vector<EncoderLayout> layouts{
      bert(), roberta("roberta", "Roberta", false), roberta("xlm-roberta", "XLMRoberta", true),
      roberta("camembert", "Camembert", true), distilbert()};
  for (const EncoderLayout& layout : layouts)
    if (layout.model_type == model_type) return &layout;
  return nullptr;
}

}  // namespace lora
