#include "engine/llama/network.h"

#include <algorithm>
#include <numeric>

#include "lora/checkpoint/checkpoint.h"

namespace lora::engine {

namespace {

bool is_trainable(const Parameter* parameter) {
  return parameter != nullptr && parameter->is_trainable();
}

}  // namespace

std::int64_t SplitLinear::total() const {
  return std::accumulate(widths_.begin(), widths_.end(), std::int64_t{0});
}

at::Tensor SplitLinear::slice(const at::Tensor& rows, std::size_t part) const {
  const auto begin = widths_.begin();
  const std::int64_t offset =
      std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(part), std::int64_t{0});
  return rows.narrow(1, offset, widths_[part]);
}

bool SplitLinear::has_trainable() const {
  return std::any_of(linears_.begin(), linears_.end(),
                     [](const Linear& linear) { return linear.has_trainable(); });
}

bool LlamaLayer::has_trainable_attention() const {
  return is_trainable(attention_before) || is_trainable(attention_behind) || is_trainable(q_norm) ||
         is_trainable(k_norm) || qkv.has_trainable() || o.has_trainable();
}

bool LlamaLayer::has_trainable_mlp() const {
  return is_trainable(mlp_before) || is_trainable(mlp_behind) || gate_up.has_trainable() ||
         down.has_trainable();
}

LlamaNetwork::LlamaNetwork(const ModelOptions& options)
    : config_(*options.base->config->decoder),
      source_(options),
      embedding(
          source_.add("model.embed_tokens.weight", {config_.vocab_size, config_.hidden_size})),
      final_norm(source_.add("model.norm.weight", {config_.hidden_size})),
      head(make_linear("lm_head", config_.hidden_size, config_.vocab_size, false)) {
  for (std::int64_t i = 0; i < config_.num_layers; ++i) layers.push_back(make_layer(i));
  source_.throw_if_incomplete();
}

Linear LlamaNetwork::make_linear(const std::string& path, std::int64_t inputs, std::int64_t outputs,
                                 bool has_bias) {
  Parameter& weight = source_.add_matrix(path + ".weight", {outputs, inputs});
  return {path, weight, has_bias ? &source_.add(path + ".bias", {outputs}) : nullptr};
}

LlamaLayer LlamaNetwork::make_layer(std::int64_t index) {
  using NormPlaces = DecoderConfig::NormPlaces;
  const std::string path = "model.layers." + std::to_string(index) + ".";
  const std::string attention = path + "self_attn.";
  const std::string mlp = path + "mlp.";
  const std::int64_t hidden = config_.hidden_size;
  const std::int64_t queries = config_.query_width();
  const std::int64_t keys = config_.key_width();
  const std::int64_t inner = config_.intermediate_size;
  const auto norm = [&](bool exists, const std::string& name, std::int64_t width) {
    return exists ? &source_.add(name + ".weight", {width}) : nullptr;
  };
  const auto split = [&](const std::string& fused, const std::vector<std::string>& names,
                         std::vector<std::int64_t> widths, bool has_bias) {
    std::vector<Linear> linears;
    if (config_.has_fused_projections) {
      const std::int64_t total = std::accumulate(widths.begin(), widths.end(), std::int64_t{0});
      linears.push_back(make_linear(fused, hidden, total, has_bias));
    } else {
      for (std::size_t i = 0; i < names.size(); ++i)
        linears.push_back(make_linear(names[i], hidden, widths[i], has_bias));
    }
    return SplitLinear(std::move(linears), std::move(widths));
  };
  const bool is_before = config_.norm_places == NormPlaces::before;
  const bool is_around = config_.norm_places == NormPlaces::around;
  const bool has_head_norm = config_.head_norm != DecoderConfig::HeadNorm::none;
  const bool is_whole = config_.head_norm == DecoderConfig::HeadNorm::whole;
  Parameter* second = norm(true, path + "post_attention_layernorm", hidden);
  return {static_cast<std::size_t>(index),
          config_.layer_slides(index),
          norm(is_before || is_around, path + "input_layernorm", hidden),
          is_before ? nullptr : second,
          is_before ? second : norm(is_around, path + "pre_feedforward_layernorm", hidden),
          norm(!is_before, path + "post_feedforward_layernorm", hidden),
          split(attention + "qkv_proj",
                {attention + "q_proj", attention + "k_proj", attention + "v_proj"},
                {queries, keys, keys}, config_.qkv_bias),
          norm(has_head_norm, attention + "q_norm", is_whole ? queries : config_.head_dim),
          norm(has_head_norm, attention + "k_norm", is_whole ? keys : config_.head_dim),
          make_linear(attention + "o_proj", queries, hidden, config_.output_bias),
          split(mlp + "gate_up_proj", {mlp + "gate_proj", mlp + "up_proj"}, {inner, inner},
                config_.mlp_bias),
          make_linear(mlp + "down_proj", inner, hidden, config_.mlp_bias)};
}

Sites LlamaNetwork::sites() {
  Sites result{{&head.site()}, &source_.parameters()};
  for (LlamaLayer& layer : layers) {
    for (SplitLinear* split : {&layer.qkv, &layer.gate_up})
      for (Linear& linear : split->linears()) result.layers.push_back(&linear.site());
    for (Linear* linear : {&layer.o, &layer.down}) result.layers.push_back(&linear->site());
  }
  return result;
}

std::size_t LlamaNetwork::lowest_trainable_layer() const {
  if (embedding.is_trainable()) return 0;
  std::size_t lowest = 0;
  while (lowest < layers.size() && !layers[lowest].has_trainable_attention() &&
         !layers[lowest].has_trainable_mlp())
    ++lowest;
  return lowest;
}

}  // namespace lora::engine
