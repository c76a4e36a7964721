#include "engine/llama/network.h"

#include "lora/checkpoint/checkpoint.h"

namespace lora::engine {

bool LlamaLayer::has_trainable_attention() const {
  return attention_norm->is_trainable() || q.has_trainable() || k.has_trainable() ||
         v.has_trainable() || o.has_trainable();
}

bool LlamaLayer::has_trainable_mlp() const {
  return mlp_norm->is_trainable() || gate.has_trainable() || up.has_trainable() ||
         down.has_trainable();
}

LlamaNetwork::LlamaNetwork(const Checkpoint& checkpoint, Compute compute)
    : config_(*checkpoint.config->decoder),
      source_(checkpoint, compute),
      embedding(
          source_.add("model.embed_tokens.weight", {config_.vocab_size, config_.hidden_size})),
      final_norm(source_.add("model.norm.weight", {config_.hidden_size})),
      head(make_linear("lm_head", config_.hidden_size, config_.vocab_size, false)) {
  for (std::int64_t i = 0; i < config_.num_layers; ++i) layers.push_back(make_layer(i));
  source_.throw_if_incomplete();
}

Linear LlamaNetwork::make_linear(const std::string& path, std::int64_t inputs, std::int64_t outputs,
                                 bool has_bias) {
  Parameter& weight = source_.add(path + ".weight", {outputs, inputs});
  return {path, weight, has_bias ? &source_.add(path + ".bias", {outputs}) : nullptr};
}

LlamaLayer LlamaNetwork::make_layer(std::int64_t index) {
  const std::string path = "model.layers." + std::to_string(index) + ".";
  const std::string attention = path + "self_attn.";
  const std::string mlp = path + "mlp.";
  const std::int64_t hidden = config_.hidden_size;
  const std::int64_t queries = config_.query_width();
  const std::int64_t keys = config_.key_width();
  const std::int64_t inner = config_.intermediate_size;
  return {&source_.add(path + "input_layernorm.weight", {hidden}),
          make_linear(attention + "q_proj", hidden, queries, config_.qkv_bias),
          make_linear(attention + "k_proj", hidden, keys, config_.qkv_bias),
          make_linear(attention + "v_proj", hidden, keys, config_.qkv_bias),
          make_linear(attention + "o_proj", queries, hidden, config_.output_bias),
          &source_.add(path + "post_attention_layernorm.weight", {hidden}),
          make_linear(mlp + "gate_proj", hidden, inner, config_.mlp_bias),
          make_linear(mlp + "up_proj", hidden, inner, config_.mlp_bias),
          make_linear(mlp + "down_proj", inner, hidden, config_.mlp_bias)};
}

Sites LlamaNetwork::sites() {
  Sites result{{&head.site()}, &source_.parameters()};
  for (LlamaLayer& layer : layers)
    for (Linear* linear :
         {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down})
      result.layers.push_back(&linear->site());
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
