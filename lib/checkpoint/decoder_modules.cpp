#include "checkpoint/module_list.h"
#include "checkpoint/module_tree.h"

namespace lora {
namespace {

using NormPlaces = DecoderConfig::NormPlaces;
using HeadNorm = DecoderConfig::HeadNorm;

void add_attention(ModuleTree& tree, const std::string& path, const DecoderConfig& layout) {
  const std::int64_t hidden = layout.hidden_size;
  const std::int64_t queries = layout.query_width();
  const std::int64_t keys = layout.key_width();
  tree.own(path, "Attention");
  if (layout.has_fused_projections) {
    tree.linear(path + ".o_proj", queries, hidden, layout.output_bias);
    tree.linear(path + ".qkv_proj", hidden, queries + 2 * keys, layout.qkv_bias);
  } else {
    tree.linear(path + ".q_proj", hidden, queries, layout.qkv_bias);
    tree.linear(path + ".k_proj", hidden, keys, layout.qkv_bias);
    tree.linear(path + ".v_proj", hidden, keys, layout.qkv_bias);
    tree.linear(path + ".o_proj", queries, hidden, layout.output_bias);
  }
  if (layout.head_norm == HeadNorm::none) return;
  const bool is_whole = layout.head_norm == HeadNorm::whole;
  tree.rms_norm(path + ".q_norm", is_whole ? queries : layout.head_dim);
  tree.rms_norm(path + ".k_norm", is_whole ? keys : layout.head_dim);
}

void add_mlp(ModuleTree& tree, const std::string& path, const DecoderConfig& layout,
             std::int64_t inner) {
  const std::int64_t hidden = layout.hidden_size;
  tree.own(path, "MLP");
  if (layout.has_fused_projections) {
    tree.linear(path + ".gate_up_proj", hidden, 2 * inner, layout.mlp_bias);
  } else {
    tree.linear(path + ".gate_proj", hidden, inner, layout.mlp_bias);
    tree.linear(path + ".up_proj", hidden, inner, layout.mlp_bias);
  }
  tree.linear(path + ".down_proj", inner, hidden, layout.mlp_bias);
  tree.activation(path + (layout.has_fused_projections ? ".activation_fn" : ".act_fn"),
                  layout.activation);
}

// A matrix of every expert in one stack, which target_parameters may name.
void add_stack(ModuleTree& tree, const std::string& path, std::vector<std::int64_t> shape) {
  ModuleInfo& info = tree.module(path, "Parameter");
  info.kind = LayerKind::parameter;
  info.weight_shape = std::move(shape);
}

// As transformers 5 builds the block, whatever layout a file has.
void add_experts(ModuleTree& tree, const std::string& path, const DecoderConfig& layout) {
  const ExpertConfig& experts = *layout.experts;
  const std::int64_t hidden = layout.hidden_size;
  const std::int64_t inner = experts.intermediate_size;
  tree.own(path, "SparseMoeBlock");
  if (!experts.router_is_last) tree.own(path + ".gate", "TopKRouter");
  tree.own(path + ".experts", "Experts");
  add_stack(tree, path + ".experts.gate_up_proj", {experts.count, 2 * inner, hidden});
  add_stack(tree, path + ".experts.down_proj", {experts.count, hidden, inner});
  tree.activation(path + ".experts.act_fn", layout.activation);
  if (experts.router_is_last) tree.own(path + ".gate", "TopKRouter");
  if (experts.shared_intermediate_size == 0) return;
  add_mlp(tree, path + ".shared_expert", layout, experts.shared_intermediate_size);
  tree.linear(path + ".shared_expert_gate", hidden, 1, false);
}

void add_layer(ModuleTree& tree, const std::string& path, std::int64_t index,
               const ModelConfig& config) {
  const DecoderConfig& layout = *config.layout;
  const std::int64_t hidden = layout.hidden_size;
  tree.own(path, "DecoderLayer");
  add_attention(tree, path + ".self_attn", layout);
  if (layout.layer_is_sparse(index))
    add_experts(tree, path + ".mlp", layout);
  else
    add_mlp(tree, path + ".mlp", layout, layout.intermediate_size);
  if (layout.norm_places != NormPlaces::behind) tree.rms_norm(path + ".input_layernorm", hidden);
  tree.rms_norm(path + ".post_attention_layernorm", hidden);
  if (layout.norm_places == NormPlaces::around)
    tree.rms_norm(path + ".pre_feedforward_layernorm", hidden);
  if (layout.norm_places != NormPlaces::before)
    tree.rms_norm(path + ".post_feedforward_layernorm", hidden);
  if (!layout.has_fused_projections) return;
  for (const char* name : {".resid_attn_dropout", ".resid_mlp_dropout"})
    tree.dropout(path + name, config.document, "resid_pdrop", 0.0);
}

}  // namespace

ModuleList decoder_modules(const ModelConfig& config) {
  const DecoderConfig& layout = *config.layout;
  ModuleTree tree(layout.class_prefix, layout.rms_norm_eps);
  tree.own("", "ForCausalLM");
  tree.module("model", layout.model_class);
  tree.embedding("model.embed_tokens", layout.vocab_size, layout.hidden_size, layout.pad_token_id)
      .class_name = layout.embedding_class;
  tree.module("model.layers", "ModuleList");
  for (std::int64_t i = 0; i < layout.num_layers; ++i)
    add_layer(tree, "model.layers." + std::to_string(i), i, config);
  tree.rms_norm("model.norm", layout.hidden_size);
  tree.own("model.rotary_emb", "RotaryEmbedding");
  tree.linear("lm_head", layout.hidden_size, layout.vocab_size, false).is_output_head = true;
  return tree.take();
}

}  // namespace lora
