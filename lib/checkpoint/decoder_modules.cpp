#include "checkpoint/module_list.h"

namespace lora {
namespace {

class TreeBuilder {
 public:
  TreeBuilder(std::string family, double eps)
      : family_(std::move(family)), eps_(dump_json(Json(eps))) {}

  ModuleInfo& module(const std::string& path, const std::string& class_name) {
    ModuleInfo& info = modules_.emplace_back();
    info.module_path = path;
    info.class_name = class_name;
    return info;
  }
  void own(const std::string& path, const std::string& class_suffix) {
    module(path, family_ + class_suffix);
  }
  ModuleInfo& linear(const std::string& path, std::int64_t in, std::int64_t out, bool has_bias) {
    ModuleInfo& info = module(path, "Linear");
    info.kind = LayerKind::linear;
    info.in_features = in;
    info.out_features = out;
    info.weight_shape = {out, in};
    info.has_bias = has_bias;
    info.arguments = "in_features=" + std::to_string(in) + ", out_features=" + std::to_string(out) +
                     ", bias=" + (has_bias ? "True" : "False");
    return info;
  }
  void norm(const std::string& path, std::int64_t width) {
    ModuleInfo& info = module(path, family_ + "RMSNorm");
    info.kind = LayerKind::norm;
    info.out_features = width;
    info.weight_shape = {width};
    info.arguments = "(" + std::to_string(width) + ",), eps=" + eps_;
  }
  void embedding(const std::string& path, std::int64_t rows, std::int64_t width,
                 std::optional<std::int64_t> padding) {
    ModuleInfo& info = module(path, "Embedding");
    info.kind = LayerKind::embedding;
    info.in_features = rows;
    info.out_features = width;
    info.weight_shape = {rows, width};
    info.arguments = std::to_string(rows) + ", " + std::to_string(width);
    // torch counts a negative padding index from the end.
    if (padding)
      info.arguments +=
          ", padding_idx=" + std::to_string(*padding < 0 ? *padding + rows : *padding);
  }
  ModuleList take() { return std::move(modules_); }

 private:
  std::string family_;
  std::string eps_;
  ModuleList modules_;
};

void add_layer(TreeBuilder& tree, const std::string& path, const DecoderConfig& layout) {
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
  tree.norm(path + ".input_layernorm", hidden);
  tree.norm(path + ".post_attention_layernorm", hidden);
}

}  // namespace

ModuleList decoder_modules(const DecoderConfig& layout, bool is_mistral) {
  TreeBuilder tree(is_mistral ? "Mistral" : "Llama", layout.rms_norm_eps);
  tree.own("", "ForCausalLM");
  tree.own("model", "Model");
  tree.embedding("model.embed_tokens", layout.vocab_size, layout.hidden_size, layout.pad_token_id);
  tree.module("model.layers", "ModuleList");
  for (std::int64_t i = 0; i < layout.num_layers; ++i)
    add_layer(tree, "model.layers." + std::to_string(i), layout);
  tree.norm("model.norm", layout.hidden_size);
  tree.own("model.rotary_emb", "RotaryEmbedding");
  tree.linear("lm_head", layout.hidden_size, layout.vocab_size, false).is_output_head = true;
  return tree.take();
}

}  // namespace lora
