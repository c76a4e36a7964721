#include <ATen/ops/arange.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "checkpoint/encoder_layout.h"
#include "engine/generic/attention.h"
#include "engine/generic/head.h"
#include "engine/generic/layers.h"
#include "lora/base/random.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora::engine {
namespace {

// A projection whose result joins the residual in front of a norm.
struct Output {
  LoraSite* dense;
  Norm norm;
  double dropout;
};

struct EncoderLayer {
  LoraSite *query, *key, *value;
  Output attention_out;
  LoraSite* up;
  Output down;
};

// BERT and the encoders that an EncoderLayout describes.
class BertNetwork final : public Network {
 public:
  explicit BertNetwork(const ModelOptions& options)
      : config_(*options.base->config->bert),
        layout_(*find_encoder_layout(options.base->config->model_type)),
        store_(options, layout_.root + ".") {
    config_.head = head_of(config_.head, {layout_.sequence_head, layout_.token_head}, options);
    add_embeddings();
    for (std::int64_t i = 0; i < config_.num_layers; ++i) layers_.push_back(make_layer(i));
    add_head();
    store_.source().throw_if_incomplete();
  }

  LayerStore& layers() override { return store_; }
  std::size_t depth() const override { return layers_.size(); }
  bool is_causal() const override { return false; }
  std::int64_t padding() const override { return config_.pad_token_id.value_or(0); }
  std::int64_t token_types() const override { return config_.token_types; }
  TokenModel tokens() const override {
    return {config_.vocab_size, config_.max_tokens, false, config_.head, {}};
  }

  at::Tensor embed(const SequencePass& pass) override {
    at::Tensor x = apply_table(words_, pass.ids, pass.pass);
    if (config_.token_types > 0)
      x = x.add(apply_table(
          types_, pass.token_types.defined() ? pass.token_types : at::zeros_like(pass.ids),
          pass.pass));
    x = x.add(apply_table(positions_, places_of(pass.ids), pass.pass));
    return drop(apply_layer_norm(embedding_norm_, x, pass.pass), config_.hidden_dropout,
                stream_of(layout_.root + ".embeddings.dropout"), pass.pass);
  }

  at::Tensor layer(std::size_t index, const at::Tensor& hidden, const SequencePass& pass) override {
    const EncoderLayer& layer = layers_[index];
    const auto heads = [&](const LoraSite* site) {
      return to_heads(apply_dense(*site, hidden, pass.pass), config_.num_heads);
    };
    AttentionSettings settings;
    settings.scale = 1 / std::sqrt(static_cast<double>(config_.hidden_size / config_.num_heads));
    settings.dropout = config_.attention_dropout;
    settings.stream = stream_of(layer.query->module_path + ".dropout");
    const at::Tensor attended =
        attend(heads(layer.query), heads(layer.key), heads(layer.value), settings, pass);
    const at::Tensor middle = finish(layer.attention_out, attended, hidden, pass);
    const at::Tensor inner =
        activate(config_.activation, apply_dense(*layer.up, middle, pass.pass));
    return finish(layer.down, inner, middle, pass);
  }

  at::Tensor logits(const at::Tensor& hidden, const SequencePass& pass) override {
    switch (config_.head.kind) {
      case HeadConfig::Kind::sequence_classification:
        return apply_dense(*head_, classifier_drop(pooled(hidden, pass), "dropout", pass),
                           pass.pass);
      case HeadConfig::Kind::token_classification:
        return apply_dense(*head_, classifier_drop(hidden, "dropout", pass), pass.pass);
      case HeadConfig::Kind::language_model:
        break;
    }
    const std::string& activation = layout_.transform_activation;
    const at::Tensor x = activate(activation.empty() ? config_.activation : activation,
                                  apply_dense(*transform_, hidden, pass.pass));
    return apply_dense(*head_, apply_layer_norm(transform_norm_, x, pass.pass), pass.pass);
  }

 private:
  void add_embeddings() {
    const std::int64_t width = config_.hidden_size;
    const std::string path = layout_.root + ".embeddings.";
    words_ =
        store_.embedding(path + "word_embeddings", config_.vocab_size, width, config_.pad_token_id);
    positions_ =
        store_.embedding(path + "position_embeddings", config_.max_position_embeddings, width,
                         layout_.counts_positions ? config_.pad_token_id : std::nullopt);
    if (config_.token_types > 0)
      types_ = store_.embedding(path + "token_type_embeddings", config_.token_types, width);
    embedding_norm_ = store_.layer_norm(path + "LayerNorm", width, config_.layer_norm_eps);
  }

  EncoderLayer make_layer(std::int64_t index) {
    const std::string path =
        layout_.root + "." + layout_.blocks + "." + std::to_string(index) + ".";
    const std::int64_t width = config_.hidden_size;
    const auto dense = [&](const std::string& name, std::int64_t in, std::int64_t out) {
      return &store_.linear(path + name, in, out, true);
    };
    const auto norm = [&](const std::string& name) {
      return store_.layer_norm(path + name, width, config_.layer_norm_eps);
    };
    EncoderLayer layer;
    layer.query = dense(layout_.query, width, width);
    layer.key = dense(layout_.key, width, width);
    layer.value = dense(layout_.value, width, width);
    layer.attention_out = {dense(layout_.attention_out, width, width), norm(layout_.attention_norm),
                           layout_.drops_attention_output ? config_.hidden_dropout : 0};
    layer.up = dense(layout_.up, width, config_.intermediate_size);
    layer.down = {dense(layout_.down, config_.intermediate_size, width), norm(layout_.down_norm),
                  config_.hidden_dropout};
    return layer;
  }

  void add_head() {
    const std::int64_t width = config_.hidden_size;
    switch (config_.head.kind) {
      case HeadConfig::Kind::sequence_classification:
        pooler_ = &store_.linear(layout_.pooler, width, width, true);
        head_ = &store_.linear(layout_.sequence_head, width, config_.head.num_labels, true);
        break;
      case HeadConfig::Kind::token_classification:
        head_ = &store_.linear(layout_.token_head, width, config_.head.num_labels, true);
        break;
      case HeadConfig::Kind::language_model:
        transform_ = &store_.linear(layout_.transform, width, width, true);
        transform_norm_ = store_.layer_norm(layout_.transform_norm, width, config_.layer_norm_eps);
        head_ = &store_.linear(layout_.decoder, width, config_.vocab_size, true);
        if (!layout_.language_bias.empty())
          store_.unused(layout_.language_bias, {config_.vocab_size});
        break;
    }
  }

  // Rows of the position table for ids [batch, time]: [1 or batch, time].
  at::Tensor places_of(const at::Tensor& ids) const {
    if (!layout_.counts_positions) return at::arange(ids.size(1), at::kLong).unsqueeze(0);
    const std::int64_t padding = *config_.pad_token_id;
    const at::Tensor counts = ids.ne(padding).to(at::kLong);
    return at::cumsum(counts, 1).mul(counts).add(padding);
  }

  at::Tensor pooled(const at::Tensor& hidden, const SequencePass& pass) const {
    at::Tensor first = hidden.select(1, 0);
    if (layout_.drops_before_pooler) first = classifier_drop(first, "pooler.dropout", pass);
    return activate(layout_.pooler_activation, apply_dense(*pooler_, first, pass.pass));
  }

  at::Tensor classifier_drop(const at::Tensor& x, const char* place,
                             const SequencePass& pass) const {
    return drop(x, config_.classifier_dropout, stream_of(place), pass.pass);
  }

  at::Tensor finish(const Output& output, const at::Tensor& x, const at::Tensor& residual,
                    const SequencePass& pass) const {
    const at::Tensor dropped = drop(apply_dense(*output.dense, x, pass.pass), output.dropout,
                                    stream_of(output.dense->module_path + ".dropout"), pass.pass);
    return apply_layer_norm(output.norm, dropped.add(residual), pass.pass);
  }

  BertConfig config_;
  const EncoderLayout& layout_;
  LayerStore store_;
  Table words_, positions_, types_;
  Norm embedding_norm_;
  std::vector<EncoderLayer> layers_;
  LoraSite* pooler_ = nullptr;
  LoraSite* transform_ = nullptr;
  Norm transform_norm_;
  LoraSite* head_ = nullptr;
};

}  // namespace

std::unique_ptr<Network> make_bert_network(const ModelOptions& options) {
  return std::make_unique<BertNetwork>(options);
}

}  // namespace lora::engine
