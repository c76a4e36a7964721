#include <ATen/ops/arange.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

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
  std::string path;
};

struct EncoderLayer {
  LoraSite *query, *key, *value;
  Output attention_out;
  LoraSite* up;
  Output down;
  std::string path;
};

class BertNetwork final : public Network {
 public:
  explicit BertNetwork(const ModelOptions& options)
      : config_(*options.base->config->bert), store_(options, "bert.") {
    config_.head = head_of(config_.head, "classifier", options);
    const std::int64_t width = config_.hidden_size;
    const std::string path = "bert.embeddings.";
    words_ =
        store_.embedding(path + "word_embeddings", config_.vocab_size, width, config_.pad_token_id);
    positions_ =
        store_.embedding(path + "position_embeddings", config_.max_position_embeddings, width);
    types_ = store_.embedding(path + "token_type_embeddings", config_.token_types, width);
    embedding_norm_ = store_.layer_norm(path + "LayerNorm", width, config_.layer_norm_eps);
    for (std::int64_t i = 0; i < config_.num_layers; ++i) layers_.push_back(make_layer(i));
    if (is_classifier())
      add_classifier();
    else
      add_language_head();
    store_.source().throw_if_incomplete();
  }

  LayerStore& layers() override { return store_; }
  std::size_t depth() const override { return layers_.size(); }
  bool is_causal() const override { return false; }
  std::int64_t token_types() const override { return config_.token_types; }
  std::string problem_type() const override { return config_.head.problem_type; }
  TokenModel tokens() const override {
    return {config_.vocab_size,
            config_.max_position_embeddings,
            false,
            is_classifier() ? config_.head.num_labels : 0,
            {}};
  }

  at::Tensor embed(const SequencePass& pass) override {
    const at::Tensor types =
        pass.token_types.defined() ? pass.token_types : at::zeros_like(pass.ids);
    const at::Tensor places = at::arange(pass.ids.size(1), at::kLong);
    const at::Tensor x = apply_table(words_, pass.ids, pass.pass)
                             .add(apply_table(types_, types, pass.pass))
                             .add(apply_table(positions_, places, pass.pass).unsqueeze(0));
    return drop(apply_layer_norm(embedding_norm_, x, pass.pass), config_.hidden_dropout,
                stream_of("bert.embeddings.dropout"), pass.pass);
  }

  at::Tensor layer(std::size_t index, const at::Tensor& hidden, const SequencePass& pass) override {
    const EncoderLayer& layer = layers_[index];
    const auto heads = [&](const LoraSite* site) {
      return to_heads(apply_dense(*site, hidden, pass.pass), config_.num_heads);
    };
    AttentionSettings settings;
    settings.scale = 1 / std::sqrt(static_cast<double>(config_.hidden_size / config_.num_heads));
    settings.dropout = config_.attention_dropout;
    settings.stream = stream_of(layer.path + ".attention.self.dropout");
    const at::Tensor attended =
        attend(heads(layer.query), heads(layer.key), heads(layer.value), settings, pass);
    const at::Tensor middle = finish(layer.attention_out, attended, hidden, pass);
    const at::Tensor inner =
        activate(config_.activation, apply_dense(*layer.up, middle, pass.pass));
    return finish(layer.down, inner, middle, pass);
  }

  at::Tensor logits(const at::Tensor& hidden, const SequencePass& pass) override {
    if (is_classifier()) {
      const at::Tensor pooled = at::tanh(apply_dense(*pooler_, hidden.select(1, 0), pass.pass));
      return apply_dense(*head_,
                         drop(pooled, config_.classifier_dropout, stream_of("dropout"), pass.pass),
                         pass.pass);
    }
    const at::Tensor x = activate(config_.activation, apply_dense(*transform_, hidden, pass.pass));
    return apply_dense(*head_, apply_layer_norm(transform_norm_, x, pass.pass), pass.pass);
  }

 private:
  bool is_classifier() const {
    return config_.head.kind == HeadConfig::Kind::sequence_classification;
  }

  Output make_output(const std::string& path, std::int64_t in) {
    return {&store_.linear(path + ".dense", in, config_.hidden_size, true),
            store_.layer_norm(path + ".LayerNorm", config_.hidden_size, config_.layer_norm_eps),
            path};
  }

  EncoderLayer make_layer(std::int64_t index) {
    const std::string path = "bert.encoder.layer." + std::to_string(index);
    const std::int64_t width = config_.hidden_size;
    const std::string attention = path + ".attention.self.";
    return {&store_.linear(attention + "query", width, width, true),
            &store_.linear(attention + "key", width, width, true),
            &store_.linear(attention + "value", width, width, true),
            make_output(path + ".attention.output", width),
            &store_.linear(path + ".intermediate.dense", width, config_.intermediate_size, true),
            make_output(path + ".output", config_.intermediate_size),
            path};
  }

  void add_classifier() {
    const std::int64_t width = config_.hidden_size;
    pooler_ = &store_.linear("bert.pooler.dense", width, width, true);
    head_ = &store_.linear("classifier", width, config_.head.num_labels, true);
  }

  void add_language_head() {
    const std::int64_t width = config_.hidden_size;
    const std::string path = "cls.predictions.";
    transform_ = &store_.linear(path + "transform.dense", width, width, true);
    transform_norm_ =
        store_.layer_norm(path + "transform.LayerNorm", width, config_.layer_norm_eps);
    head_ = &store_.linear(path + "decoder", width, config_.vocab_size, true);
    store_.unused(path + "bias", {config_.vocab_size});
  }

  at::Tensor finish(const Output& output, const at::Tensor& x, const at::Tensor& residual,
                    const SequencePass& pass) const {
    const at::Tensor dropped =
        drop(apply_dense(*output.dense, x, pass.pass), config_.hidden_dropout,
             stream_of(output.path + ".dropout"), pass.pass);
    return apply_layer_norm(output.norm, dropped.add(residual), pass.pass);
  }

  BertConfig config_;
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
