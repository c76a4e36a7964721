#include "checkpoint/module_list.h"
#include "checkpoint/module_tree.h"

namespace lora {
namespace {

using Head = HeadConfig::Kind;

void add_block(ModuleTree& tree, const std::string& path, const ModelConfig& config) {
  const GptNeoxConfig& neox = *config.gpt_neox;
  const std::int64_t width = neox.hidden_size;
  tree.own(path, "Layer");
  tree.layer_norm(path + ".input_layernorm", width);
  tree.layer_norm(path + ".post_attention_layernorm", width);
  for (const char* name : {".post_attention_dropout", ".post_mlp_dropout"})
    tree.dropout(path + name, config.document, "hidden_dropout", neox.hidden_dropout);
  const std::string attention = path + ".attention";
  tree.own(attention, "Attention");
  tree.linear(attention + ".query_key_value", width, 3 * width, neox.attention_bias);
  tree.linear(attention + ".dense", width, width, neox.attention_bias);
  const std::string mlp = path + ".mlp";
  tree.own(mlp, "MLP");
  tree.linear(mlp + ".dense_h_to_4h", width, neox.intermediate_size, true);
  tree.linear(mlp + ".dense_4h_to_h", neox.intermediate_size, width, true);
  tree.activation(mlp + ".act", neox.activation);
}

}  // namespace

ModuleList gpt_neox_modules(const ModelConfig& config) {
  const GptNeoxConfig& neox = *config.gpt_neox;
  const std::int64_t width = neox.hidden_size;
  ModuleTree tree("GPTNeoX", neox.layer_norm_eps);
  tree.own("", neox.head.kind == Head::language_model            ? "ForCausalLM"
               : neox.head.kind == Head::sequence_classification ? "ForSequenceClassification"
                                                                 : "ForTokenClassification");
  tree.own("gpt_neox", "Model");
  tree.embedding("gpt_neox.embed_in", neox.vocab_size, width);
  tree.dropout("gpt_neox.emb_dropout", config.document, "hidden_dropout", neox.hidden_dropout);
  tree.module("gpt_neox.layers", "ModuleList");
  for (std::int64_t i = 0; i < neox.num_layers; ++i)
    add_block(tree, "gpt_neox.layers." + std::to_string(i), config);
  tree.layer_norm("gpt_neox.final_layer_norm", width);
  tree.own("gpt_neox.rotary_emb", "RotaryEmbedding");
  switch (neox.head.kind) {
    case Head::language_model:
      tree.linear("lm_head", width, neox.vocab_size, false).is_output_head = true;
      break;
    case Head::sequence_classification:
      tree.linear("score", width, neox.head.num_labels, false);
      break;
    case Head::token_classification:
      tree.dropout("dropout", config.document, "classifier_dropout", neox.classifier_dropout);
      tree.linear("classifier", width, neox.head.num_labels, true);
      break;
  }
  return tree.take();
}

}  // namespace lora
