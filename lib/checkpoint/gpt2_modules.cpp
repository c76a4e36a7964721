#include "checkpoint/module_list.h"
#include "checkpoint/module_tree.h"

namespace lora {
namespace {

void add_block(ModuleTree& tree, const std::string& path, const ModelConfig& config) {
  const Gpt2Config& gpt2 = *config.gpt2;
  const std::int64_t width = gpt2.hidden_size;
  const Json& document = config.document;
  tree.own(path, "Block");
  tree.layer_norm(path + ".ln_1", width);
  const std::string attention = path + ".attn";
  tree.own(attention, "Attention");
  tree.conv1d(attention + ".c_attn", width, 3 * width);
  tree.conv1d(attention + ".c_proj", width, width);
  tree.dropout(attention + ".attn_dropout", document, "attn_pdrop", gpt2.attention_dropout);
  tree.dropout(attention + ".resid_dropout", document, "resid_pdrop", gpt2.residual_dropout);
  tree.layer_norm(path + ".ln_2", width);
  const std::string mlp = path + ".mlp";
  tree.own(mlp, "MLP");
  tree.conv1d(mlp + ".c_fc", width, gpt2.intermediate_size);
  tree.conv1d(mlp + ".c_proj", gpt2.intermediate_size, width);
  tree.activation(mlp + ".act", gpt2.activation);
  tree.dropout(mlp + ".dropout", document, "resid_pdrop", gpt2.residual_dropout);
}

}  // namespace

ModuleList gpt2_modules(const ModelConfig& config) {
  const Gpt2Config& gpt2 = *config.gpt2;
  const bool is_classifier = gpt2.head.kind == HeadConfig::Kind::sequence_classification;
  ModuleTree tree("GPT2", gpt2.layer_norm_eps);
  tree.own("", is_classifier ? "ForSequenceClassification" : "LMHeadModel");
  tree.own("transformer", "Model");
  tree.embedding("transformer.wte", gpt2.vocab_size, gpt2.hidden_size);
  tree.embedding("transformer.wpe", gpt2.max_position_embeddings, gpt2.hidden_size);
  tree.dropout("transformer.drop", config.document, "embd_pdrop", gpt2.embedding_dropout);
  tree.module("transformer.h", "ModuleList");
  for (std::int64_t i = 0; i < gpt2.num_layers; ++i)
    add_block(tree, "transformer.h." + std::to_string(i), config);
  tree.layer_norm("transformer.ln_f", gpt2.hidden_size);
  if (is_classifier)
    tree.linear("score", gpt2.hidden_size, gpt2.head.num_labels, false);
  else
    tree.linear("lm_head", gpt2.hidden_size, gpt2.vocab_size, false).is_output_head = true;
  return tree.take();
}

}  // namespace lora
