#include "ops/fresh_parameters.h"

#include <cmath>

#include "checkpoint/config_fields.h"
#include "checkpoint/encoder_layout.h"

namespace lora {
namespace {

class ParameterList {
 public:
  explicit ParameterList(double initializer_range) : range_(initializer_range) {}

  void matrix(const std::string& name, std::int64_t rows, std::int64_t columns) {
    add(name, {rows, columns}, FreshParameter::Fill::normal, range_);
  }
  void matrix(const std::string& name, std::int64_t rows, std::int64_t columns, double deviation) {
    add(name, {rows, columns}, FreshParameter::Fill::normal, deviation);
  }
  void zeros(const std::string& name, std::int64_t size) {
    add(name, {size}, FreshParameter::Fill::zeros, 0);
  }
  void ones(const std::string& name, std::int64_t size) {
    add(name, {size}, FreshParameter::Fill::ones, 0);
  }
  void uniform(const std::string& name, std::vector<std::int64_t> shape, double bound) {
    add(name, std::move(shape), FreshParameter::Fill::uniform, bound);
  }
  void linear(const std::string& path, std::int64_t out, std::int64_t in, bool has_bias) {
    matrix(path + ".weight", out, in);
    if (has_bias) zeros(path + ".bias", out);
  }
  void layer_norm(const std::string& path, std::int64_t size) {
    ones(path + ".weight", size);
    zeros(path + ".bias", size);
  }
  void embedding(const std::string& path, std::int64_t rows, std::int64_t width,
                 std::optional<std::int64_t> padding) {
    matrix(path + ".weight", rows, width);
    if (padding && *padding < 0) *padding += rows;
    if (padding && *padding >= 0 && *padding < rows) list_.back().zero_row = padding;
  }
  double range() const { return range_; }
  std::vector<FreshParameter> take() { return std::move(list_); }

 private:
  void add(const std::string& name, std::vector<std::int64_t> shape, FreshParameter::Fill fill,
           double scale) {
    list_.push_back({name, std::move(shape), fill, scale, std::nullopt});
  }
  double range_;
  std::vector<FreshParameter> list_;
};

std::vector<FreshParameter> mlp_parameters(const MlpConfig& mlp) {
  ParameterList list(0);
  for (std::size_t i = 0; i < mlp.layers.size(); ++i) {
    const std::int64_t in = mlp.hidden_sizes[i];
    const std::int64_t out = mlp.hidden_sizes[i + 1];
    const double bound = 1.0 / std::sqrt(static_cast<double>(in));
    list.uniform(mlp.layers[i] + ".weight", {out, in}, bound);
    list.uniform(mlp.layers[i] + ".bias", {out}, bound);
  }
  return list.take();
}

// A norm that multiplies by 1 + weight starts at zero.
void add_norm(ParameterList& list, const DecoderConfig& layout, const std::string& path,
              std::int64_t width) {
  if (layout.norm_adds_one)
    list.zeros(path + ".weight", width);
  else
    list.ones(path + ".weight", width);
}

void add_decoder_layer(ParameterList& list, const DecoderConfig& layout, const std::string& layer) {
  using NormPlaces = DecoderConfig::NormPlaces;
  const std::int64_t hidden = layout.hidden_size;
  const std::int64_t inner = layout.intermediate_size;
  const std::int64_t queries = layout.query_width();
  const std::int64_t keys = layout.key_width();
  const std::string attention = layer + ".self_attn.";
  const std::string mlp = layer + ".mlp.";
  if (layout.has_fused_projections) {
    list.linear(attention + "qkv_proj", queries + 2 * keys, hidden, layout.qkv_bias);
    list.linear(mlp + "gate_up_proj", 2 * inner, hidden, layout.mlp_bias);
  } else {
    list.linear(attention + "q_proj", queries, hidden, layout.qkv_bias);
    list.linear(attention + "k_proj", keys, hidden, layout.qkv_bias);
    list.linear(attention + "v_proj", keys, hidden, layout.qkv_bias);
    list.linear(mlp + "gate_proj", inner, hidden, layout.mlp_bias);
    list.linear(mlp + "up_proj", inner, hidden, layout.mlp_bias);
  }
  list.linear(attention + "o_proj", hidden, queries, layout.output_bias);
  list.linear(mlp + "down_proj", hidden, inner, layout.mlp_bias);
  if (layout.head_norm != DecoderConfig::HeadNorm::none) {
    const bool is_whole = layout.head_norm == DecoderConfig::HeadNorm::whole;
    add_norm(list, layout, attention + "q_norm", is_whole ? queries : layout.head_dim);
    add_norm(list, layout, attention + "k_norm", is_whole ? keys : layout.head_dim);
  }
  if (layout.norm_places != NormPlaces::behind)
    add_norm(list, layout, layer + ".input_layernorm", hidden);
  add_norm(list, layout, layer + ".post_attention_layernorm", hidden);
  if (layout.norm_places == NormPlaces::around)
    add_norm(list, layout, layer + ".pre_feedforward_layernorm", hidden);
  if (layout.norm_places != NormPlaces::before)
    add_norm(list, layout, layer + ".post_feedforward_layernorm", hidden);
}

std::vector<FreshParameter> decoder_parameters(const DecoderConfig& layout) {
  ParameterList list(layout.initializer_range);
  list.embedding("model.embed_tokens", layout.vocab_size, layout.hidden_size, layout.pad_token_id);
  for (std::int64_t i = 0; i < layout.num_layers; ++i)
    add_decoder_layer(list, layout, "model.layers." + std::to_string(i));
  add_norm(list, layout, "model.norm", layout.hidden_size);
  if (!layout.tie_word_embeddings)
    list.matrix("lm_head.weight", layout.vocab_size, layout.hidden_size);
  return list.take();
}

void require_divisible(const ConfigFields& fields, const char* key, std::int64_t size,
                       std::int64_t heads) {
  if (size % heads != 0)
    throw fields.wrong(key, std::to_string(size),
                       "a multiple of the " + std::to_string(heads) + " attention heads");
}

std::vector<FreshParameter> gpt2_parameters(const ModelConfig& config, const ConfigFields& fields) {
  const std::int64_t width = fields.extent("n_embd").value_or(768);
  const std::int64_t layers = fields.integer("n_layer", 1, 1 << 16).value_or(12);
  const std::int64_t vocabulary = fields.extent("vocab_size").value_or(50257);
  const std::int64_t positions = fields.extent("n_positions").value_or(1024);
  const std::int64_t inner = fields.extent("n_inner").value_or(4 * width);
  require_divisible(fields, "n_embd", width, fields.extent("n_head").value_or(12));

  ParameterList list(fields.number("initializer_range").value_or(0.02));
  // Residual projections start smaller by the number of residual additions (two a layer).
  const double residual = list.range() / std::sqrt(2.0 * static_cast<double>(layers));
  list.matrix("transformer.wte.weight", vocabulary, width);
  list.matrix("transformer.wpe.weight", positions, width);
  for (std::int64_t i = 0; i < layers; ++i) {
    const std::string block = "transformer.h." + std::to_string(i);
    list.layer_norm(block + ".ln_1", width);
    list.matrix(block + ".attn.c_attn.weight", width, 3 * width);
    list.zeros(block + ".attn.c_attn.bias", 3 * width);
    list.matrix(block + ".attn.c_proj.weight", width, width, residual);
    list.zeros(block + ".attn.c_proj.bias", width);
    list.layer_norm(block + ".ln_2", width);
    list.matrix(block + ".mlp.c_fc.weight", width, inner);
    list.zeros(block + ".mlp.c_fc.bias", inner);
    list.matrix(block + ".mlp.c_proj.weight", inner, width, residual);
    list.zeros(block + ".mlp.c_proj.bias", width);
  }
  list.layer_norm("transformer.ln_f", width);
  if (!config.tie_word_embeddings) list.matrix("lm_head.weight", vocabulary, width);
  return list.take();
}

std::vector<FreshParameter> bert_parameters(const ModelConfig& config, const ConfigFields& fields) {
  const BertConfig& bert = *config.bert;
  const EncoderLayout& layout = *find_encoder_layout(config.model_type);
  const std::int64_t hidden = bert.hidden_size;
  const std::int64_t inner = bert.intermediate_size;

  ParameterList list(fields.number("initializer_range").value_or(0.02));
  const std::string embeddings = layout.root + ".embeddings.";
  list.embedding(embeddings + "word_embeddings", bert.vocab_size, hidden, bert.pad_token_id);
  list.embedding(embeddings + "position_embeddings", bert.max_position_embeddings, hidden,
                 layout.counts_positions ? bert.pad_token_id : std::nullopt);
  if (bert.token_types > 0)
    list.matrix(embeddings + "token_type_embeddings.weight", bert.token_types, hidden);
  list.layer_norm(embeddings + "LayerNorm", hidden);
  for (std::int64_t i = 0; i < bert.num_layers; ++i) {
    const std::string block = layout.root + "." + layout.blocks + "." + std::to_string(i) + ".";
    for (const std::string& name : {layout.query, layout.key, layout.value, layout.attention_out})
      list.linear(block + name, hidden, hidden, true);
    list.layer_norm(block + layout.attention_norm, hidden);
    list.linear(block + layout.up, inner, hidden, true);
    list.linear(block + layout.down, hidden, inner, true);
    list.layer_norm(block + layout.down_norm, hidden);
  }
  list.linear(layout.transform, hidden, hidden, true);
  list.layer_norm(layout.transform_norm, hidden);
  const bool has_own_bias = layout.language_bias.empty();
  list.zeros(has_own_bias ? layout.decoder + ".bias" : layout.language_bias, bert.vocab_size);
  if (config.tie_word_embeddings) return list.take();
  list.matrix(layout.decoder + ".weight", bert.vocab_size, hidden);
  if (!has_own_bias) list.zeros(layout.decoder + ".bias", bert.vocab_size);
  return list.take();
}

std::vector<FreshParameter> gpt_neox_parameters(const ModelConfig& config,
                                                const ConfigFields& fields) {
  const GptNeoxConfig& neox = *config.gpt_neox;
  const std::int64_t width = neox.hidden_size;
  ParameterList list(fields.number("initializer_range").value_or(0.02));
  list.matrix("gpt_neox.embed_in.weight", neox.vocab_size, width);
  for (std::int64_t i = 0; i < neox.num_layers; ++i) {
    const std::string block = "gpt_neox.layers." + std::to_string(i);
    list.layer_norm(block + ".input_layernorm", width);
    list.layer_norm(block + ".post_attention_layernorm", width);
    list.linear(block + ".attention.query_key_value", 3 * width, width, neox.attention_bias);
    list.linear(block + ".attention.dense", width, width, neox.attention_bias);
    list.linear(block + ".mlp.dense_h_to_4h", neox.intermediate_size, width, true);
    list.linear(block + ".mlp.dense_4h_to_h", width, neox.intermediate_size, true);
  }
  list.layer_norm("gpt_neox.final_layer_norm", width);
  if (!config.tie_word_embeddings) list.matrix("embed_out.weight", neox.vocab_size, width);
  return list.take();
}

Error cannot_make(const std::string& context, const std::string& reason) {
  return Error(ErrorKind::unsupported, "cannot make weights for " + context + ": " + reason)
      .in_file(context);
}

void require_architecture(const ModelConfig& config, const std::string& expected,
                          const std::string& context) {
  if (config.architecture.empty() || config.architecture == expected) return;
  throw cannot_make(context,
                    "architecture " + config.architecture + " is not known, expected " + expected);
}

void require_plain(const ConfigFields& fields, const std::string& context) {
  for (const char* key : {"add_cross_attention", "is_decoder"})
    if (fields.boolean(key).value_or(false))
      throw cannot_make(context, std::string(key) + " is not supported");
}

}  // namespace

std::vector<FreshParameter> fresh_parameters(const ModelConfig& config,
                                             const std::string& context) {
  if (config.mlp) return mlp_parameters(*config.mlp);
  if (config.layout) {
    require_architecture(config, config.layout->class_prefix + "ForCausalLM", context);
    if (config.layout->experts)
      throw Error(ErrorKind::unsupported,
                  "cannot make weights for " + context + ": blocks of experts are not made here")
          .in_file(context)
          .with_hint("init-base --from imports such a model");
    return decoder_parameters(*config.layout);
  }
  const ConfigFields fields(config.document, context);
  if (config.model_type == "gpt2") {
    require_architecture(config, "GPT2LMHeadModel", context);
    require_plain(fields, context);
    return gpt2_parameters(config, fields);
  }
  if (const EncoderLayout* layout = find_encoder_layout(config.model_type)) {
    require_architecture(config, layout->classes + "ForMaskedLM", context);
    require_plain(fields, context);
    if (fields.boolean("sinusoidal_pos_embds").value_or(false))
      throw cannot_make(context, "sinusoidal_pos_embds is not supported");
    if (!config.bert) throw cannot_make(context, config.unsupported_reason);
    return bert_parameters(config, fields);
  }
  if (config.model_type == "gpt_neox") {
    require_architecture(config, "GPTNeoXForCausalLM", context);
    if (!config.gpt_neox) throw cannot_make(context, config.unsupported_reason);
    return gpt_neox_parameters(config, fields);
  }
  throw cannot_make(context, "model_type \"" + config.model_type +
                                 "\" is not known, expected gpt2, bert, roberta, "
                                 "xlm-roberta, camembert, distilbert, gpt_neox, mlp or a decoder "
                                 "such as llama, qwen3, gemma2, phi3, granite or olmo2");
}

}  // namespace lora
