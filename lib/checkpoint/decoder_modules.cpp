#include "checkpoint/module_list.h"
#include "checkpoint/module_tree.h"

namespace lora {
namespace {

void add_layer(ModuleTree& tree, const std::string& path, const DecoderConfig& layout) {
  const std::int64_t hidden = layout.hidden_size;
  const std::int64_t queries = layout.num_heads * layout.head_dim;
  const std::int64_t keys = layout.num_kv_heads * layout.head_dim;
  tree.own(path, "DecoderLayer");
  const std::string attention = path + ".self_attn";
  tree.own(attention, "Attention");
  tree.linear(attention + ".q_proj", hidden, queries, layout.attention_bias);
  tree.linear(attention + ".k_proj", hidden, keys, layout.attention_bias);
  tree.linear(attention + ".v_proj", hidden, keys, layout.attention_bias);
  tree.linear(attention + ".o_proj", queries, hidden, layout.attention_bias);
  const std::string mlp = path + ".mlp";
  tree.own(mlp, "MLP");
  tree.linear(mlp + ".gate_proj", hidden, layout.intermediate_size, layout.mlp_bias);
  tree.linear(mlp + ".up_proj", hidden, layout.intermediate_size, layout.mlp_bias);
  tree.linear(mlp + ".down_proj", layout.intermediate_size, hidden, layout.mlp_bias);
  tree.module(mlp + ".act_fn", "SiLUActivation");
  tree.rms_norm(path + ".input_layernorm", hidden);
  tree.rms_norm(path + ".post_attention_layernorm", hidden);
}

}  // namespace

ModuleList decoder_modules(const DecoderConfig& layout, bool is_mistral) {
  ModuleTree tree(is_mistral ? "Mistral" : "Llama", layout.rms_norm_eps);
  tree.own("", "ForCausalLM");
  tree.own("model", "Model");
  tree.embedding("model.embed_tokens", layout.vocab_size, layout.hidden_size, layout.pad_token_id);
  tree.module("model.layers", "ModuleList");
  for (std::int64_t i = 0; i < layout.num_layers; ++i)
    add_layer(tree, "model.layers." + std::to_string(i), layout);
  tree.rms_norm("model.norm", layout.hidden_size);
  tree.own("model.rotary_emb", "RotaryEmbedding");
  tree.linear("lm_head", layout.hidden_size, layout.vocab_size, false).is_output_head = true;
  return tree.take();
}

}  // namespace lora
