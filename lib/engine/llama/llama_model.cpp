#include "engine/llama/llama_model.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "engine/bridge.h"
#include "engine/gemm.h"
#include "engine/llama/cache.h"
#include "engine/llama/head.h"
#include "engine/llama/network.h"
#include "engine/llama/sights.h"
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
        network_(options),
        sights_(network_.config()),
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
    const at::Tensor hidden = run_layers(context, tokens.ids, layer_count());
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
    const at::Tensor hidden = run_layers(context, tokens.ids, layer_count());
    return head_loss(network_, context, hidden, supervision, 0, nullptr);
  }

  LossSum loss_and_gradients(const Batch& batch, double gradient_scale,
                             const StepContext& step) override {
    const c10::InferenceMode guard;
    const TokenBatch tokens = read_tokens(batch, tokens_);
    const Supervision supervision = read_labels(batch, tokens, tokens_);
    const LayerContext context = make_context(tokens, {true, &step});
    const at::Tensor hidden = run_layers(context, tokens.ids, lowest_);
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

  LayerContext make_context(const TokenBatch& tokens, const Pass& pass, std::int64_t past = 0) {
    const bool is_bf16 =
        is_bf16_product(network_.layers.front().down.weight().base, tokens.batch * tokens.time);
    return {config(),
            workspace_,
            pass,
            tokens.batch,
            tokens.time,
            sights_.of(tokens, past),
            tokens.key_mask(),
            is_bf16 ? at::kBFloat16 : at::kFloat};
  }

  // The scaled rows of the embedding, x [ids, hidden].
  void embed(const Pass& pass, const std::vector<std::int64_t>& ids, at::Tensor& x);
  // Hidden states after the last layer. Layers from `keep_from` on leave what backward needs.
  at::Tensor run_layers(const LayerContext& context, const std::vector<std::int64_t>& ids,
                        std::size_t keep_from);
  // Logits [1, vocabulary] of the last of these tokens, which join the cache.
  void extend(KeyValueCache& cache, const std::vector<std::int64_t>& ids, at::Tensor& logits);
  void backward(const LayerContext& context, const std::vector<std::int64_t>& ids);

  ModelOptions options_;
  TokenModel tokens_;
  LlamaNetwork network_;
  Sights sights_;
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

void LlamaModel::embed(const Pass& pass, const std::vector<std::int64_t>& ids, at::Tensor& x) {
  const auto count = static_cast<std::int64_t>(ids.size());
  ensure(x, {count, config().hidden_size});
  const at::Tensor index = at::from_blob(const_cast<std::int64_t*>(ids.data()), {count}, at::kLong);
  x.copy_(at::index_select(network_.embedding.value(pass.with_adapters), 0, index));
  if (config().embedding_multiplier != 1) x.mul_(static_cast<float>(config().embedding_multiplier));
}

at::Tensor LlamaModel::run_layers(const LayerContext& context, const std::vector<std::int64_t>& ids,
                                  std::size_t keep_from) {
  const auto input_of = [&](std::size_t layer) -> at::Tensor& {
    return layer >= keep_from && layer < layer_count() ? states_[layer].x : hidden_[layer % 2];
  };
  embed(context.pass, ids, input_of(0));
  for (std::size_t i = 0; i < layer_count(); ++i) {
    const bool is_kept = i >= keep_from && !is_checkpointing_;
    LayerState& state = is_kept ? states_[i] : passing_;
    if (!is_kept) state.x = input_of(i);
    at::Tensor& out = input_of(i + 1);
    ensure(out, {context.rows(), config().hidden_size});
    layer_forward(network_.layers[i], context, state, out);
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
  gradient.index_add_(0, index, gradient_, config().embedding_multiplier);
  // torch's embedding sends no gradient to the row of the padding token.
  const std::int64_t padding = config().pad_token_id.value_or(config().vocab_size);
  const std::int64_t row = padding < 0 ? padding + config().vocab_size : padding;
  if (row >= 0 && row < config().vocab_size) gradient.select(0, row).zero_();
}

void LlamaModel::extend(KeyValueCache& cache, const std::vector<std::int64_t>& ids,
                        at::Tensor& logits) {
  TokenBatch tokens;
  tokens.batch = 1;
  tokens.time = static_cast<std::int64_t>(ids.size());
  LayerContext context = make_context(tokens, {are_adapters_enabled_, nullptr}, cache.length);
  context.cache = &cache;
  const at::Tensor hidden = run_layers(context, ids, layer_count());
  cache.length += tokens.time;
  head_logits(network_, context, hidden.narrow(0, tokens.time - 1, 1), logits);
}

std::vector<std::int64_t> LlamaModel::generate(const std::vector<std::int64_t>& prompt,
                                               const GenerateOptions& options) {
  const c10::InferenceMode guard;
  const auto length = static_cast<std::int64_t>(prompt.size());
  const Tensor ids = Tensor::from_i64({1, length}, prompt);
  read_tokens({{"input_ids", ids}}, tokens_);
  const std::int64_t wanted = std::max<std::int64_t>(0, options.max_new_tokens);
  check_positions(length + wanted, tokens_);
  std::vector<std::int64_t> result;
  if (wanted == 0) return result;

  KeyValueCache cache(config(), length + wanted);
  at::Tensor logits = at::empty({1, config().vocab_size}, at::kFloat);
  std::vector<std::int64_t> fresh = prompt;
  while (true) {
    // Longer sequences may turn by other frequencies, and then so do the keys of the cache.
    if (sights_.reserve(cache.length + static_cast<std::int64_t>(fresh.size())) &&
        cache.length > 0) {
      fresh = prompt;
      fresh.insert(fresh.end(), result.begin(), result.end());
      cache.length = 0;
    }
    extend(cache, fresh, logits);
    if (options.cancel != nullptr && options.cancel->load())
      throw Error(ErrorKind::interrupted, "generating text: interrupted");
    const std::int64_t token = choose_token(logits, options.temperature, options.seed,
                                            static_cast<std::int64_t>(result.size()));
    result.push_back(token);
    const bool goes_on = !options.on_token || options.on_token(token);
    const bool is_stop = std::find(options.stop_tokens.begin(), options.stop_tokens.end(), token) !=
                         options.stop_tokens.end();
    if (!goes_on || is_stop || static_cast<std::int64_t>(result.size()) == wanted) return result;
    fresh = {token};
  }
}

}  // namespace

bool has_fast_step(const DecoderConfig& config) {
  const bool has_gate = config.activation == "silu" || config.activation == "gelu_pytorch_tanh";
  const bool has_norm_in_slice =
      config.has_fused_projections && config.head_norm != DecoderConfig::HeadNorm::none;
  return has_gate && !has_norm_in_slice && !config.experts && config.attention_dropout == 0 &&
         config.residual_dropout == 0;
}

std::unique_ptr<Model> make_llama(const ModelOptions& options) {
  return std::make_unique<LlamaModel>(options);
}

}  // namespace lora::engine
