#include <ATen/ops/arange.h>

#include <cmath>

#include "engine/generic/attention.h"
#include "engine/generic/head.h"
#include "engine/generic/layers.h"
#include "lora/base/random.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora::engine {
namespace {

struct Block {
  Norm attention_norm;
  LoraSite *qkv, *attention_out;
  Norm mlp_norm;
  LoraSite *up, *down;
  std::string path;
};

class Gpt2Network final : public Network {
 public:
  explicit Gpt2Network(const ModelOptions& options)
      : config_(*options.base->config->gpt2), store_(options, "transformer.") {
    config_.head = head_of(config_.head, {"score", ""}, options);
    const std::int64_t width = config_.hidden_size;
    words_ = store_.embedding("transformer.wte", config_.vocab_size, width);
    positions_ = store_.embedding("transformer.wpe", config_.max_position_embeddings, width);
    for (std::int64_t i = 0; i < config_.num_layers; ++i) blocks_.push_back(make_block(i));
    final_norm_ = store_.layer_norm("transformer.ln_f", width, config_.layer_norm_eps);
    head_ = is_classifier() ? &store_.linear("score", width, config_.head.num_labels, false)
                            : &store_.linear("lm_head", width, config_.vocab_size, false);
    store_.source().throw_if_incomplete();
  }

  LayerStore& layers() override { return store_; }
  std::size_t depth() const override { return blocks_.size(); }
  bool is_causal() const override { return true; }
  std::int64_t padding() const override { return config_.pad_token_id.value_or(0); }
  TokenModel tokens() const override {
    return {config_.vocab_size, config_.max_position_embeddings, !is_classifier(), config_.head,
            config_.eos_token_ids};
  }

  at::Tensor embed(const SequencePass& pass) override {
    const at::Tensor places = pass.positions.defined()
                                  ? pass.positions
                                  : at::arange(pass.ids.size(1), at::kLong).unsqueeze(0);
    const at::Tensor x =
        apply_table(words_, pass.ids, pass.pass).add(apply_table(positions_, places, pass.pass));
    return drop(x, config_.embedding_dropout, stream_of("transformer.drop"), pass.pass);
  }

  at::Tensor layer(std::size_t index, const at::Tensor& hidden, const SequencePass& pass) override {
    const Block& block = blocks_[index];
    const at::Tensor middle = hidden.add(attention(index, hidden, pass));
    const at::Tensor normed = apply_layer_norm(block.mlp_norm, middle, pass.pass);
    const at::Tensor inner =
        activate(config_.activation, apply_dense(*block.up, normed, pass.pass));
    const at::Tensor out = apply_dense(*block.down, inner, pass.pass);
    return middle.add(residual(out, block.path + ".mlp.dropout", pass));
  }

  at::Tensor logits(const at::Tensor& hidden, const SequencePass& pass) override {
    const at::Tensor rows =
        is_classifier() ? last_tokens(hidden, pass, config_.pad_token_id) : hidden;
    return apply_dense(*head_, apply_layer_norm(final_norm_, rows, pass.pass), pass.pass);
  }

 private:
  bool is_classifier() const { return config_.head.is_classifier(); }

  Block make_block(std::int64_t index) {
    const std::string path = "transformer.h." + std::to_string(index);
    const std::int64_t width = config_.hidden_size;
    const double eps = config_.layer_norm_eps;
    return {store_.layer_norm(path + ".ln_1", width, eps),
            &store_.conv1d(path + ".attn.c_attn", width, 3 * width),
            &store_.conv1d(path + ".attn.c_proj", width, width),
            store_.layer_norm(path + ".ln_2", width, eps),
            &store_.conv1d(path + ".mlp.c_fc", width, config_.intermediate_size),
            &store_.conv1d(path + ".mlp.c_proj", config_.intermediate_size, width),
            path};
  }

  at::Tensor residual(const at::Tensor& x, const std::string& place,
                      const SequencePass& pass) const {
    return drop(x, config_.residual_dropout, stream_of(place), pass.pass);
  }

  at::Tensor attention(std::size_t index, const at::Tensor& hidden,
                       const SequencePass& pass) const {
    const Block& block = blocks_[index];
    const std::int64_t width = config_.hidden_size;
    const at::Tensor qkv = apply_dense(
        *block.qkv, apply_layer_norm(block.attention_norm, hidden, pass.pass), pass.pass);
    const auto part = [&](std::int64_t i) {
      return to_heads(qkv.narrow(2, i * width, width), config_.num_heads);
    };
    AttentionSettings settings;
    settings.is_causal = true;
    settings.dropout = config_.attention_dropout;
    settings.stream = stream_of(block.path + ".attn.attn_dropout");
    if (config_.scale_attention)
      settings.scale = 1 / std::sqrt(static_cast<double>(width / config_.num_heads));
    if (config_.scale_by_layer) settings.scale /= static_cast<double>(index + 1);
    const at::Tensor out = attend(part(0), part(1), part(2), settings, pass);
    return residual(apply_dense(*block.attention_out, out, pass.pass),
                    block.path + ".attn.resid_dropout", pass);
  }

  Gpt2Config config_;
  LayerStore store_;
  Table words_, positions_;
  std::vector<Block> blocks_;
  Norm final_norm_;
  LoraSite* head_ = nullptr;
};

}  // namespace

std::unique_ptr<Network> make_gpt2_network(const ModelOptions& options) {
  return std::make_unique<Gpt2Network>(options);
}

}  // namespace lora::engine
