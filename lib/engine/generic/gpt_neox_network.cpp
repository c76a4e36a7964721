#include <cmath>

#include "engine/generic/attention.h"
#include "engine/generic/head.h"
#include "engine/generic/layers.h"
#include "engine/generic/rotate.h"
#include "lora/base/random.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora::engine {
namespace {

struct Block {
  Norm attention_norm, mlp_norm;
  LoraSite *qkv, *attention_out;
  LoraSite *up, *down;
  std::string path;
};

class GptNeoxNetwork final : public Network {
 public:
  explicit GptNeoxNetwork(const ModelOptions& options)
      : config_(*options.base->config->gpt_neox),
        store_(options, "gpt_neox."),
        rotary_(config_.rope, config_.rotary_size) {
    config_.head = head_of(config_.head, {"score", "classifier"}, options);
    const std::int64_t width = config_.hidden_size;
    words_ = store_.embedding("gpt_neox.embed_in", config_.vocab_size, width);
    for (std::int64_t i = 0; i < config_.num_layers; ++i) blocks_.push_back(make_block(i));
    final_norm_ = store_.layer_norm("gpt_neox.final_layer_norm", width, config_.layer_norm_eps);
    head_ = &make_head(width);
    store_.source().throw_if_incomplete();
  }

  LayerStore& layers() override { return store_; }
  std::size_t depth() const override { return blocks_.size(); }
  bool is_causal() const override { return true; }
  std::int64_t padding() const override { return config_.pad_token_id.value_or(0); }
  TokenModel tokens() const override {
    return {config_.vocab_size, config_.max_position_embeddings, !config_.head.is_classifier(),
            config_.head, config_.eos_token_ids};
  }

  at::Tensor embed(const SequencePass& pass) override {
    rotary_.reserve(pass.longest);
    return dropped(apply_table(words_, pass.ids, pass.pass), "gpt_neox.emb_dropout", pass);
  }

  at::Tensor layer(std::size_t index, const at::Tensor& hidden, const SequencePass& pass) override {
    const Block& block = blocks_[index];
    const at::Tensor attended =
        dropped(attention(block, apply_layer_norm(block.attention_norm, hidden, pass.pass), pass),
                block.path + ".post_attention_dropout", pass);
    const at::Tensor middle = attended.add(hidden);
    const at::Tensor& mlp_input = config_.has_parallel_residual ? hidden : middle;
    const at::Tensor inner = activate(
        config_.activation,
        apply_dense(*block.up, apply_layer_norm(block.mlp_norm, mlp_input, pass.pass), pass.pass));
    return dropped(apply_dense(*block.down, inner, pass.pass), block.path + ".post_mlp_dropout",
                   pass)
        .add(middle);
  }

  at::Tensor logits(const at::Tensor& hidden, const SequencePass& pass) override {
    const bool is_of_sequence = config_.head.kind == HeadConfig::Kind::sequence_classification;
    const at::Tensor rows =
        is_of_sequence ? last_tokens(hidden, pass, config_.pad_token_id) : hidden;
    at::Tensor x = apply_layer_norm(final_norm_, rows, pass.pass);
    if (config_.head.kind == HeadConfig::Kind::token_classification)
      x = drop(x, config_.classifier_dropout, stream_of("dropout"), pass.pass);
    return apply_dense(*head_, x, pass.pass);
  }

 private:
  Block make_block(std::int64_t index) {
    const std::string path = "gpt_neox.layers." + std::to_string(index);
    const std::int64_t width = config_.hidden_size;
    const std::int64_t inner = config_.intermediate_size;
    const bool has_bias = config_.attention_bias;
    return {store_.layer_norm(path + ".input_layernorm", width, config_.layer_norm_eps),
            store_.layer_norm(path + ".post_attention_layernorm", width, config_.layer_norm_eps),
            &store_.linear(path + ".attention.query_key_value", width, 3 * width, has_bias),
            &store_.linear(path + ".attention.dense", width, width, has_bias),
            &store_.linear(path + ".mlp.dense_h_to_4h", width, inner, true),
            &store_.linear(path + ".mlp.dense_4h_to_h", inner, width, true),
            path};
  }

  LoraSite& make_head(std::int64_t width) {
    switch (config_.head.kind) {
      case HeadConfig::Kind::sequence_classification:
        return store_.linear("score", width, config_.head.num_labels, false);
      case HeadConfig::Kind::token_classification:
        return store_.linear("classifier", width, config_.head.num_labels, true);
      case HeadConfig::Kind::language_model:
        break;
    }
    return store_.linear("lm_head", width, config_.vocab_size, false);
  }

  at::Tensor dropped(const at::Tensor& x, const std::string& place,
                     const SequencePass& pass) const {
    return drop(x, config_.hidden_dropout, stream_of(place), pass.pass);
  }

  at::Tensor attention(const Block& block, const at::Tensor& x, const SequencePass& pass) const {
    // Each head has its query, key and value side by side.
    const at::Tensor heads = to_heads(apply_dense(*block.qkv, x, pass.pass), config_.num_heads);
    const std::int64_t size = config_.hidden_size / config_.num_heads;
    const auto part = [&](std::int64_t i) { return heads.narrow(3, i * size, size); };
    AttentionSettings settings;
    settings.is_causal = true;
    settings.scale = 1 / std::sqrt(static_cast<double>(size));
    settings.dropout = config_.attention_dropout;
    settings.stream = stream_of(block.path + ".attention.dropout");
    const at::Tensor out = attend(rotate(part(0), rotary_, pass), rotate(part(1), rotary_, pass),
                                  part(2), settings, pass);
    return apply_dense(*block.attention_out, out, pass.pass);
  }

  GptNeoxConfig config_;
  LayerStore store_;
  RotaryTable rotary_;
  Table words_;
  std::vector<Block> blocks_;
  Norm final_norm_;
  LoraSite* head_ = nullptr;
};

}  // namespace

std::unique_ptr<Network> make_gpt_neox_network(const ModelOptions& options) {
  return std::make_unique<GptNeoxNetwork>(options);
}

}  // namespace lora::engine
