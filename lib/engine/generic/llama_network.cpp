#include <ATen/ops/silu.h>

#include <cmath>

#include "engine/generic/attention.h"
#include "engine/generic/layers.h"
#include "engine/generic/rotate.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora::engine {
namespace {

struct DecoderLayer {
  Norm attention_norm;
  LoraSite *q, *k, *v, *o;
  Norm mlp_norm;
  LoraSite *gate, *up, *down;
};

// The same model as engine/llama, for adapters that its manual backward does not know.
class GenericLlama final : public Network {
 public:
  explicit GenericLlama(const ModelOptions& options)
      : config_(*options.base->config->decoder),
        tokens_(*options.base->config->token_model()),
        store_(options),
        rotary_(config_.rope, config_.head_dim) {
    words_ = store_.embedding("model.embed_tokens", config_.vocab_size, config_.hidden_size,
                              config_.pad_token_id);
    for (std::int64_t i = 0; i < config_.num_layers; ++i) layers_.push_back(make_layer(i));
    final_norm_ = store_.rms_norm("model.norm", config_.hidden_size, config_.rms_norm_eps);
    head_ = &store_.linear("lm_head", config_.hidden_size, config_.vocab_size, false);
    store_.source().throw_if_incomplete();
  }

  LayerStore& layers() override { return store_; }
  std::size_t depth() const override { return layers_.size(); }
  bool is_causal() const override { return true; }
  TokenModel tokens() const override { return tokens_; }

  at::Tensor embed(const SequencePass& pass) override {
    rotary_.reserve(pass.ids.size(1));
    return apply_table(words_, pass.ids, pass.pass);
  }

  at::Tensor layer(std::size_t index, const at::Tensor& hidden, const SequencePass& pass) override {
    const DecoderLayer& layer = layers_[index];
    const at::Tensor middle = hidden.add(attention(layer, hidden, pass));
    const at::Tensor normed = apply_rms_norm(layer.mlp_norm, middle, pass.pass);
    const at::Tensor inner = at::silu(apply_dense(*layer.gate, normed, pass.pass))
                                 .mul(apply_dense(*layer.up, normed, pass.pass));
    return middle.add(apply_dense(*layer.down, inner, pass.pass));
  }

  at::Tensor logits(const at::Tensor& hidden, const SequencePass& pass) override {
    return apply_dense(*head_, apply_rms_norm(final_norm_, hidden, pass.pass), pass.pass);
  }

 private:
  DecoderLayer make_layer(std::int64_t index) {
    const std::string path = "model.layers." + std::to_string(index) + ".";
    const std::string attention = path + "self_attn.";
    const std::string mlp = path + "mlp.";
    const std::int64_t hidden = config_.hidden_size;
    const std::int64_t queries = config_.num_heads * config_.head_dim;
    const std::int64_t keys = config_.num_kv_heads * config_.head_dim;
    const std::int64_t inner = config_.intermediate_size;
    const bool has_bias = config_.attention_bias;
    return {store_.rms_norm(path + "input_layernorm", hidden, config_.rms_norm_eps),
            &store_.linear(attention + "q_proj", hidden, queries, has_bias),
            &store_.linear(attention + "k_proj", hidden, keys, has_bias),
            &store_.linear(attention + "v_proj", hidden, keys, has_bias),
            &store_.linear(attention + "o_proj", queries, hidden, has_bias),
            store_.rms_norm(path + "post_attention_layernorm", hidden, config_.rms_norm_eps),
            &store_.linear(mlp + "gate_proj", hidden, inner, config_.mlp_bias),
            &store_.linear(mlp + "up_proj", hidden, inner, config_.mlp_bias),
            &store_.linear(mlp + "down_proj", inner, hidden, config_.mlp_bias)};
  }

  // Every key and value head serves a group of neighbouring query heads.
  at::Tensor repeated(const at::Tensor& x) const {
    const std::int64_t group = config_.num_heads / config_.num_kv_heads;
    if (group == 1) return x;
    return x.unsqueeze(2)
        .expand({x.size(0), x.size(1), group, x.size(2), x.size(3)})
        .reshape({x.size(0), x.size(1) * group, x.size(2), x.size(3)});
  }

  at::Tensor attention(const DecoderLayer& layer, const at::Tensor& hidden,
                       const SequencePass& pass) const {
    const at::Tensor normed = apply_rms_norm(layer.attention_norm, hidden, pass.pass);
    const auto heads = [&](const LoraSite* site, std::int64_t count) {
      return to_heads(apply_dense(*site, normed, pass.pass), count);
    };
    AttentionSettings settings;
    settings.is_causal = true;
    settings.scale = 1 / std::sqrt(static_cast<double>(config_.head_dim));
    const at::Tensor out =
        attend(rotate(heads(layer.q, config_.num_heads), rotary_, config_.head_dim),
               repeated(rotate(heads(layer.k, config_.num_kv_heads), rotary_, config_.head_dim)),
               repeated(heads(layer.v, config_.num_kv_heads)), settings, pass);
    return apply_dense(*layer.o, out, pass.pass);
  }

  DecoderConfig config_;
  TokenModel tokens_;
  LayerStore store_;
  RotaryTable rotary_;
  Table words_;
  std::vector<DecoderLayer> layers_;
  Norm final_norm_;
  LoraSite* head_ = nullptr;
};

}  // namespace

std::unique_ptr<Network> make_llama_network(const ModelOptions& options) {
  return std::make_unique<GenericLlama>(options);
}

}  // namespace lora::engine
