#include <ATen/ops/tanh.h>

#include <cmath>
#include <memory>
#include <optional>

#include "engine/generic/attention.h"
#include "engine/generic/experts.h"
#include "engine/generic/layers.h"
#include "engine/generic/rotate.h"
#include "lora/base/random.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora::engine {
namespace {

using NormPlaces = DecoderConfig::NormPlaces;
using HeadNorm = DecoderConfig::HeadNorm;

// Norms in front of a block and behind it; families leave one of them out.
struct BlockNorms {
  std::optional<Norm> before, behind;
};

struct DecoderLayer {
  std::string path;
  bool slides = false;
  BlockNorms attention_norms, mlp_norms;
  LoraSite* qkv = nullptr;
  LoraSite *q = nullptr, *k = nullptr, *v = nullptr;
  LoraSite* o = nullptr;
  std::optional<Norm> q_norm, k_norm;
  FeedForward mlp;
  std::unique_ptr<ExpertBlock> experts;
};

// Every decoder of the Llama kind, as its DecoderConfig says. engine/llama computes the plain ones
// faster; here are those that differ, and adapters that its manual backward does not know.
class DecoderNetwork final : public Network {
 public:
  explicit DecoderNetwork(const ModelOptions& options)
      : config_(*options.base->config->decoder),
        tokens_(*options.base->config->token_model()),
        store_(options),
        rotary_(config_.rope, config_.head_dim) {
    if (config_.sliding_rope) sliding_rotary_.emplace(*config_.sliding_rope, config_.head_dim);
    words_ = store_.embedding("model.embed_tokens", config_.vocab_size, config_.hidden_size,
                              config_.pad_token_id);
    for (std::int64_t i = 0; i < config_.num_layers; ++i)
      layers_.push_back(make_layer(i, *options.base));
    final_norm_ = norm("model.norm", config_.hidden_size);
    head_ = &store_.linear("lm_head", config_.hidden_size, config_.vocab_size, false);
    store_.source().throw_if_incomplete();
  }

  LayerStore& layers() override { return store_; }
  std::size_t depth() const override { return layers_.size(); }
  bool is_causal() const override { return true; }
  TokenModel tokens() const override { return tokens_; }

  at::Tensor embed(const SequencePass& pass) override {
    rotary_.reserve(pass.longest);
    if (sliding_rotary_) sliding_rotary_->reserve(pass.longest);
    const at::Tensor x = apply_table(words_, pass.ids, pass.pass);
    return config_.embedding_multiplier == 1
               ? x
               : x.mul(static_cast<float>(config_.embedding_multiplier));
  }

  at::Tensor layer(std::size_t index, const at::Tensor& hidden, const SequencePass& pass) override {
    const DecoderLayer& layer = layers_[index];
    const auto add_block = [&](const at::Tensor& x, const BlockNorms& norms, const char* dropout,
                               const auto& block) {
      at::Tensor y = block(norms.before ? apply_rms_norm(*norms.before, x, pass.pass) : x);
      if (norms.behind) y = apply_rms_norm(*norms.behind, y, pass.pass);
      if (config_.residual_multiplier != 1) y = y.mul(config_.residual_multiplier);
      return x.add(drop(y, config_.residual_dropout, stream_of(layer.path + dropout), pass.pass));
    };
    const at::Tensor middle =
        add_block(hidden, layer.attention_norms, ".resid_attn_dropout",
                  [&](const at::Tensor& x) { return attention(layer, x, pass); });
    return add_block(middle, layer.mlp_norms, ".resid_mlp_dropout", [&](const at::Tensor& x) {
      return layer.experts ? layer.experts->apply(x, pass.pass)
                           : apply_feed_forward(layer.mlp, config_.activation, x, pass.pass);
    });
  }

  at::Tensor logits(const at::Tensor& hidden, const SequencePass& pass) override {
    at::Tensor y = apply_dense(*head_, apply_rms_norm(final_norm_, hidden, pass.pass), pass.pass);
    if (config_.logits_divisor != 1) y = y.div(config_.logits_divisor);
    return capped(y, config_.logits_softcap);
  }

 private:
  Norm norm(const std::string& path, std::int64_t width) {
    Norm result = store_.rms_norm(path, width, config_.rms_norm_eps);
    result.adds_one = config_.norm_adds_one;
    return result;
  }

  DecoderLayer make_layer(std::int64_t index, const Checkpoint& base) {
    DecoderLayer layer;
    layer.path = "model.layers." + std::to_string(index);
    layer.slides = config_.layer_slides(index);
    const std::string path = layer.path + ".";
    const std::int64_t hidden = config_.hidden_size;
    const bool is_around = config_.norm_places == NormPlaces::around;
    if (config_.norm_places == NormPlaces::behind) {
      layer.attention_norms.behind = norm(path + "post_attention_layernorm", hidden);
      layer.mlp_norms.behind = norm(path + "post_feedforward_layernorm", hidden);
    } else {
      layer.attention_norms.before = norm(path + "input_layernorm", hidden);
      const Norm second = norm(path + "post_attention_layernorm", hidden);
      (is_around ? layer.attention_norms.behind : layer.mlp_norms.before) = second;
    }
    if (is_around) {
      layer.mlp_norms.before = norm(path + "pre_feedforward_layernorm", hidden);
      layer.mlp_norms.behind = norm(path + "post_feedforward_layernorm", hidden);
    }
    add_attention(layer, path + "self_attn.");
    if (config_.layer_is_sparse(index))
      layer.experts = std::make_unique<ExpertBlock>(store_, base, config_, layer.path);
    else
      layer.mlp = make_feed_forward(store_, config_, path + "mlp.", config_.intermediate_size);
    return layer;
  }

  void add_attention(DecoderLayer& layer, const std::string& path) {
    const std::int64_t hidden = config_.hidden_size;
    const std::int64_t queries = config_.query_width();
    const std::int64_t keys = config_.key_width();
    if (config_.has_fused_projections) {
      layer.qkv = &store_.linear(path + "qkv_proj", hidden, queries + 2 * keys, config_.qkv_bias);
    } else {
      layer.q = &store_.linear(path + "q_proj", hidden, queries, config_.qkv_bias);
      layer.k = &store_.linear(path + "k_proj", hidden, keys, config_.qkv_bias);
      layer.v = &store_.linear(path + "v_proj", hidden, keys, config_.qkv_bias);
    }
    layer.o = &store_.linear(path + "o_proj", queries, hidden, config_.output_bias);
    if (config_.head_norm == HeadNorm::none) return;
    const bool is_whole = config_.head_norm == HeadNorm::whole;
    layer.q_norm = norm(path + "q_norm", is_whole ? queries : config_.head_dim);
    layer.k_norm = norm(path + "k_norm", is_whole ? keys : config_.head_dim);
  }

  static at::Tensor capped(const at::Tensor& x, double cap) {
    return cap == 0 ? x : at::tanh(x.div(cap)).mul(cap);
  }

  // Every key and value head serves a group of neighbouring query heads.
  at::Tensor repeated(const at::Tensor& x) const {
    const std::int64_t group = config_.num_heads / config_.num_kv_heads;
    if (group == 1) return x;
    return x.unsqueeze(2)
        .expand({x.size(0), x.size(1), group, x.size(2), x.size(3)})
        .reshape({x.size(0), x.size(1) * group, x.size(2), x.size(3)});
  }

  struct Projections {
    at::Tensor q, k, v;
  };
  Projections project(const DecoderLayer& layer, const at::Tensor& x, const Pass& pass) const {
    if (layer.qkv == nullptr)
      return {apply_dense(*layer.q, x, pass), apply_dense(*layer.k, x, pass),
              apply_dense(*layer.v, x, pass)};
    const std::int64_t queries = config_.query_width();
    const std::int64_t keys = config_.key_width();
    const at::Tensor all = apply_dense(*layer.qkv, x, pass);
    return {all.narrow(-1, 0, queries), all.narrow(-1, queries, keys),
            all.narrow(-1, queries + keys, keys)};
  }

  // Heads [batch, heads, time, dim], normed where the family does.
  at::Tensor heads(const at::Tensor& x, std::int64_t count, const std::optional<Norm>& norm,
                   const Pass& pass) const {
    const bool is_whole = config_.head_norm == HeadNorm::whole;
    const at::Tensor split = to_heads(norm && is_whole ? apply_rms_norm(*norm, x, pass) : x, count);
    return norm && !is_whole ? apply_rms_norm(*norm, split, pass) : split;
  }

  at::Tensor attention(const DecoderLayer& layer, const at::Tensor& x,
                       const SequencePass& pass) const {
    const Projections projected = project(layer, x, pass.pass);
    const RotaryTable& rotary = layer.slides && sliding_rotary_ ? *sliding_rotary_ : rotary_;
    const at::Tensor q = heads(projected.q, config_.num_heads, layer.q_norm, pass.pass);
    const at::Tensor k = heads(projected.k, config_.num_kv_heads, layer.k_norm, pass.pass);
    const at::Tensor v = to_heads(projected.v, config_.num_kv_heads);
    AttentionSettings settings;
    settings.is_causal = true;
    settings.window = layer.slides ? config_.sliding_window : 0;
    settings.scale = config_.attention_scale;
    settings.softcap = config_.attention_softcap;
    settings.dropout = config_.attention_dropout;
    settings.stream = stream_of(layer.path + ".self_attn.dropout");
    const at::Tensor out = attend(rotate(q, rotary, pass), repeated(rotate(k, rotary, pass)),
                                  repeated(v), settings, pass);
    return apply_dense(*layer.o, out, pass.pass);
  }

  DecoderConfig config_;
  TokenModel tokens_;
  LayerStore store_;
  RotaryTable rotary_;
  std::optional<RotaryTable> sliding_rotary_;
  Table words_;
  std::vector<DecoderLayer> layers_;
  Norm final_norm_;
  LoraSite* head_ = nullptr;
};

}  // namespace

std::unique_ptr<Network> make_decoder_network(const ModelOptions& options) {
  return std::make_unique<DecoderNetwork>(options);
}

}  // namespace lora::engine
