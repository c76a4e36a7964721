// GPT-2 and GPT-NeoX in GGUF files.
#include <algorithm>

#include "checkpoint/gguf_families.h"
#include "checkpoint/gguf_layout.h"

namespace lora {
namespace {

// Weight and bias of a LayerNorm.
void norm(GgufLayout& layout, const std::string& from, const std::string& to, std::int64_t width) {
  layout.take(from + ".weight", to + ".weight", {width});
  layout.take(from + ".bias", to + ".bias", {width});
}

}  // namespace

GgufModel read_gguf_gpt2(const GgufFile& file) {
  const GgufMetadata metadata(file, "gpt2");
  const GgufSizes sizes = gguf_sizes(file, metadata);
  const std::int64_t width = sizes.width;
  GgufLayout layout(file);
  // The model's matrices have a row for each input.
  GgufWeight turned;
  turned.is_transposed = true;
  layout.take("token_embd.weight", "transformer.wte.weight", {sizes.vocabulary, width});
  layout.take("position_embd.weight", "transformer.wpe.weight", {sizes.positions, width});
  for (std::int64_t i = 0; i < sizes.layers; ++i) {
    const std::string from = "blk." + std::to_string(i) + ".";
    const std::string to = "transformer.h." + std::to_string(i) + ".";
    norm(layout, from + "attn_norm", to + "ln_1", width);
    layout.linear(from + "attn_qkv", to + "attn.c_attn", {width, 3 * width}, turned);
    layout.linear(from + "attn_output", to + "attn.c_proj", {width, width}, turned);
    norm(layout, from + "ffn_norm", to + "ln_2", width);
    layout.linear(from + "ffn_up", to + "mlp.c_fc", {width, sizes.inner}, turned);
    layout.linear(from + "ffn_down", to + "mlp.c_proj", {sizes.inner, width}, turned);
  }
  norm(layout, "output_norm", "transformer.ln_f", width);
  // Older files say the embedding again as a head.
  bool is_tied = true;
  if (const GgufTensor* head = file.find("output.weight")) {
    const GgufTensor& words = required_tensor(file, "token_embd.weight");
    is_tied =
        std::equal(head->bytes.begin(), head->bytes.end(), words.bytes.begin(), words.bytes.end());
    if (is_tied)
      layout.pass_over("output.weight");
    else
      layout.take("output.weight", "lm_head.weight", {sizes.vocabulary, width});
  }
  GgufModel model;
  model.model_type = "gpt2";
  model.weights = layout.finish("gpt2");
  model.config = {{"activation_function", "gelu_new"},
                  {"architectures", JsonArray{"GPT2LMHeadModel"}},
                  {"layer_norm_epsilon", metadata.positive("attention.layer_norm_epsilon", 1e-5)},
                  {"model_type", "gpt2"},
                  {"n_embd", width},
                  {"n_head", sizes.heads},
                  {"n_inner", sizes.inner},
                  {"n_layer", sizes.layers},
                  {"n_positions", sizes.positions},
                  {"tie_word_embeddings", is_tied},
                  {"vocab_size", sizes.vocabulary}};
  return model;
}

GgufModel read_gguf_gpt_neox(const GgufFile& file) {
  const GgufMetadata metadata(file, "gptneox");
  const GgufSizes sizes = gguf_sizes(file, metadata);
  const std::int64_t width = sizes.width;
  if (sizes.heads * sizes.head != width)
    throw gguf_fault(file, ErrorKind::malformed,
                     std::to_string(sizes.heads) + " heads do not share " + std::to_string(width) +
                         " values evenly");
  GgufLayout layout(file);
  GgufWeight thirds;
  thirds.rows = GgufRows::thirds;
  thirds.heads = sizes.heads;
  layout.take("token_embd.weight", "gpt_neox.embed_in.weight", {sizes.vocabulary, width});
  for (std::int64_t i = 0; i < sizes.layers; ++i) {
    const std::string from = "blk." + std::to_string(i) + ".";
    const std::string to = "gpt_neox.layers." + std::to_string(i) + ".";
    norm(layout, from + "attn_norm", to + "input_layernorm", width);
    norm(layout, from + "ffn_norm", to + "post_attention_layernorm", width);
    layout.linear(from + "attn_qkv", to + "attention.query_key_value", {3 * width, width}, thirds);
    layout.linear(from + "attn_output", to + "attention.dense", {width, width});
    layout.linear(from + "ffn_up", to + "mlp.dense_h_to_4h", {sizes.inner, width});
    layout.linear(from + "ffn_down", to + "mlp.dense_4h_to_h", {width, sizes.inner});
  }
  norm(layout, "output_norm", "gpt_neox.final_layer_norm", width);
  layout.take("output.weight", "embed_out.weight", {sizes.vocabulary, width});
  GgufModel model;
  model.model_type = "gpt_neox";
  model.weights = layout.finish("gptneox");
  JsonObject rope = gguf_rope(file, metadata, sizes);
  rope["partial_rotary_factor"] =
      static_cast<double>(sizes.rotated) / static_cast<double>(sizes.head);
  model.config = {{"architectures", JsonArray{"GPTNeoXForCausalLM"}},
                  {"attention_bias", layout.has_bias("attn_qkv")},
                  {"hidden_act", "gelu"},
                  {"hidden_size", width},
                  {"intermediate_size", sizes.inner},
                  {"layer_norm_eps", metadata.positive("attention.layer_norm_epsilon", 1e-5)},
                  {"max_position_embeddings", sizes.positions},
                  {"model_type", "gpt_neox"},
                  {"num_attention_heads", sizes.heads},
                  {"num_hidden_layers", sizes.layers},
                  {"rope_parameters", std::move(rope)},
                  {"tie_word_embeddings", false},
                  {"use_parallel_residual", metadata.flag("use_parallel_residual").value_or(true)},
                  {"vocab_size", sizes.vocabulary}};
  return model;
}

}  // namespace lora
