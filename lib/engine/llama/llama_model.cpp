#include "engine/llama/llama_model.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "engine/bridge.h"
#include "engine/llama/decoder.h"
#include "engine/llama/head.h"
#include "engine/llama/network.h"
#include "engine/llama/rotary.h"
#include "engine/sampling.h"
#include "engine/token_batch.h"
#include "lora/base/error.h"

namespace lora::engine {
namespace {

class LlamaModel final : public Model {
 public:
  explicit LlamaModel(const ModelOptions& options)
      : options_(options),
        tokens_(*options.base->config->token_model()),
        network_(*options.base, options.compute),
        rotary_(network_.config().rope, network_.config().head_dim),
        flat_(bind_adapters(options, network_.sites(), Gradients::manual)),
        lowest_(network_.lowest_trainable_layer()),
        states_(network_.layers.size()) {}

  std::vector<ParameterInfo> parameters() const override {
    return list_parameters(options_, flat_, network_.parameters());
  }
  void enable_adapters(bool enabled) override { are_adapters_enabled_ = enabled; }
  FlatParameters& trainable() override { return flat_; }
  void set_layer_checkpointing(bool enabled) override {
    is_checkpointing_ = enabled;
    states_.assign(states_.size(), {});
  }

  TensorMap forward(const TensorMap& inputs) override {
    const c10::InferenceMode guard;
    const TokenBatch tokens = read_tokens(inputs, tokens_);
    const LayerContext context = make_context(tokens, {are_adapters_enabled_, nullptr});
    const at::Tensor hidden = run_layers(context, tokens.ids, layer_count(), {});
    at::Tensor logits = at::empty({tokens.batch, tokens.time, config().vocab_size}, at::kFloat);
    at::Tensor rows = logits.view({-1, config().vocab_size});
    head_logits(network_, context, hidden, rows);
    return {{"logits", to_lora(logits)}};
  }

  LossSum loss(const Batch& batch) override {
    const c10::InferenceMode guard;
    const TokenBatch tokens = read_tokens(batch, tokens_);
    const Supervision supervision = read_labels(batch, tokens, tokens_);
    const LayerContext context = make_context(tokens, {are_adapters_enabled_, nullptr});
    const at::Tensor hidden = run_layers(context, tokens.ids, layer_count(), {});
    return head_loss(network_, context, hidden, supervision, 0, nullptr);
  }

  LossSum loss_and_gradients(const Batch& batch, double gradient_scale,
                             const StepContext& step) override {
    const c10::InferenceMode guard;
    const TokenBatch tokens = read_tokens(batch, tokens_);
    const Supervision supervision = read_labels(batch, tokens, tokens_);
    const LayerContext context = make_context(tokens, {true, &step});
    const at::Tensor hidden = run_layers(context, tokens.ids, lowest_, {});
    ensure(gradient_, hidden.sizes());
    const bool has_layers = lowest_ < layer_count() || network_.embedding.is_trainable();
    const LossSum result = head_loss(network_, context, hidden, supervision, gradient_scale,
                                     has_layers ? &gradient_ : nullptr);
    if (has_layers && !supervision.rows.empty()) backward(context, tokens.ids);
    return result;
  }

  std::vector<std::int64_t> generate(const std::vector<std::int64_t>& prompt,
                                     const GenerateOptions& options) override;

 private:
  const DecoderConfig& config() const { return network_.config(); }
  std::size_t layer_count() const { return network_.layers.size(); }

  LayerContext make_context(const TokenBatch& tokens, const Pass& pass) {
    rotary_.reserve(tokens.time);
    return {config(), rotary_, workspace_, pass, tokens.batch, tokens.time, tokens.key_mask()};
  }

  // Hidden states after the last layer. Layers from `keep_from` on leave what backward needs.
  at::Tensor run_layers(const LayerContext& context, const std::vector<std::int64_t>& ids,
                        std::size_t keep_from,
                        const std::function<void(std::size_t, const LayerState&)>& on_layer);
  void backward(const LayerContext& context, const std::vector<std::int64_t>& ids);

  ModelOptions options_;
  TokenModel tokens_;
  LlamaNetwork network_;
  RotaryTable rotary_;
  FlatParameters flat_;
  std::size_t lowest_;
  Workspace workspace_;
  std::vector<LayerState> states_;  ///< of the layers that backward visits
  LayerState passing_;              ///< of the others, and of all when checkpointing
  at::Tensor hidden_[2];            ///< inputs of layers that are not kept, and the last output
  at::Tensor gradient_;
  bool are_adapters_enabled_ = true;
  bool is_checkpointing_ = false;
};

at::Tensor LlamaModel::run_layers(
    const LayerContext& context, const std::vector<std::int64_t>& ids, std::size_t keep_from,
    const std::function<void(std::size_t, const LayerState&)>& on_layer) {
  const auto input_of = [&](std::size_t layer) -> at::Tensor& {
    return layer >= keep_from && layer < layer_count() ? states_[layer].x : hidden_[layer % 2];
  };
  embed(network_, context.pass, ids, input_of(0));
  for (std::size_t i = 0; i < layer_count(); ++i) {
    const bool is_kept = i >= keep_from && !is_checkpointing_;
    LayerState& state = is_kept ? states_[i] : passing_;
    if (!is_kept) state.x = input_of(i);
    at::Tensor& out = input_of(i + 1);
    ensure(out, {context.rows(), config().hidden_size});
    layer_forward(network_.layers[i], context, state, out);
    if (on_layer) on_layer(i, state);
  }
  return input_of(layer_count());
}

void LlamaModel::backward(const LayerContext& context, const std::vector<std::int64_t>& ids) {
  const bool has_embedding = network_.embedding.is_trainable();
  for (std::size_t i = layer_count(); i-- > lowest_;) {
    LayerState* state = &states_[i];
    if (is_checkpointing_) {
      passing_.x = states_[i].x;
      at::Tensor& unused = hidden_[(layer_count() + 1) % 2];
      ensure(unused, passing_.x.sizes());
      layer_forward(network_.layers[i], context, passing_, unused);
      state = &passing_;
    }
    layer_backward(network_.layers[i], context, *state, gradient_, i > lowest_ || has_embedding);
  }
  if (!has_embedding) return;
  const at::Tensor index = at::from_blob(const_cast<std::int64_t*>(ids.data()),
                                         {static_cast<std::int64_t>(ids.size())}, at::kLong);
  at::Tensor gradient = network_.embedding.gradient;
  gradient.index_add_(0, index, gradient_);
  // torch's embedding sends no gradient to the row of the padding token.
  const std::int64_t padding = config().pad_token_id.value_or(config().vocab_size);
  const std::int64_t row = padding < 0 ? padding + config().vocab_size : padding;
  if (row >= 0 && row < config().vocab_size) gradient.select(0, row).zero_();
}

std::vector<std::int64_t> LlamaModel::generate(const std::vector<std::int64_t>& prompt,
                                               const GenerateOptions& options) {
  const c10::InferenceMode guard;
  const auto length = static_cast<std::int64_t>(prompt.size());
  const Tensor ids = Tensor::from_i64({1, length}, prompt);
  TokenBatch tokens = read_tokens({{"input_ids", ids}}, tokens_);
  const std::int64_t wanted = std::max<std::int64_t>(0, options.max_new_tokens);
  check_positions(length + wanted, tokens_);
  std::vector<std::int64_t> result;
  if (wanted == 0) return result;

  KeyValueCache cache(config(), length + wanted);
  const Pass pass{are_adapters_enabled_, nullptr};
  LayerContext context = make_context(tokens, pass);
  const at::Tensor hidden =
      run_layers(context, tokens.ids, layer_count(),
                 [&](std::size_t layer, const LayerState& state) { cache.store(layer, state); });
  cache.length = length;
  at::Tensor logits = at::empty({1, config().vocab_size}, at::kFloat);
  head_logits(network_, context, hidden.narrow(0, length - 1, 1), logits);

  rotary_.reserve(length + wanted);
  context.time = 1;
  while (true) {
    if (options.cancel != nullptr && options.cancel->load())
      throw Error(ErrorKind::interrupted, "generating text: interrupted");
    const std::int64_t token = choose_token(logits, options.temperature, options.seed,
                                            static_cast<std::int64_t>(result.size()));
    result.push_back(token);
    const bool goes_on = !options.on_token || options.on_token(token);
    const bool is_stop = std::find(options.stop_tokens.begin(), options.stop_tokens.end(), token) !=
                         options.stop_tokens.end();
    if (!goes_on || is_stop || static_cast<std::int64_t>(result.size()) == wanted) return result;
    decode_token(network_, context, token, cache, logits);
  }
}

}  // namespace

bool has_fast_step(const DecoderConfig& config) {
  // A window over all positions is none, and sequences are never longer.
  const bool hides_positions =
      !config.slides.empty() && config.sliding_window < config.max_position_embeddings;
  return config.activation == "silu" && !config.norm_adds_one &&
         config.norm_places == DecoderConfig::NormPlaces::before &&
         config.head_norm == DecoderConfig::HeadNorm::none && !config.has_fused_projections &&
         config.embedding_multiplier == 1 && config.residual_multiplier == 1 &&
         config.attention_scale == 1 / std::sqrt(static_cast<double>(config.head_dim)) &&
         config.logits_divisor == 1 && config.attention_softcap == 0 &&
         config.logits_softcap == 0 && config.attention_dropout == 0 &&
         config.residual_dropout == 0 && !hides_positions && config.rope.rotary_fraction == 1 &&
         !config.sliding_rope && !config.experts;
}

std::unique_ptr<Model> make_llama(const ModelOptions& options) {
  return std::make_unique<LlamaModel>(options);
}

}  // namespace lora::engine
