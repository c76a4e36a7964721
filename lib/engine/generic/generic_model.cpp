#include "engine/generic/generic_model.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "engine/bridge.h"
#include "engine/generic/head.h"
#include "engine/generic/layers.h"
#include "engine/sampling.h"
#include "lora/adapter/adapter.h"
#include "lora/base/error.h"

namespace lora::engine {
namespace {

class GenericModel final : public Model {
 public:
  GenericModel(const ModelOptions& options, std::unique_ptr<Network> network)
      : options_(options),
        network_(std::move(network)),
        tokens_(network_->tokens()),
        flat_(bind_adapters(options, network_->layers().sites(), Gradients::autograd)) {
    network_->layers().source().fill_missing();
    keep_norms(options.trainable);
  }

  std::vector<ParameterInfo> parameters() const override {
    return list_parameters(options_, flat_, network_->layers().source().parameters());
  }
  void enable_adapters(bool enabled) override { are_adapters_enabled_ = enabled; }
  FlatParameters& trainable() override { return flat_; }
  void set_layer_checkpointing(bool enabled) override { is_checkpointing_ = enabled; }

  TensorMap forward(const TensorMap& inputs) override {
    const at::NoGradGuard guard;
    const TokenBatch tokens = read_tokens(inputs, tokens_, network_->token_types());
    const SequencePass pass = make_pass(tokens, *network_, {are_adapters_enabled_, nullptr});
    return {{"logits", to_lora(network_->logits(hidden_states(pass), pass))}};
  }

  LossSum loss(const Batch& batch) override {
    const at::NoGradGuard guard;
    const TokenBatch tokens = read(batch);
    const SequencePass pass = make_pass(tokens, *network_, {are_adapters_enabled_, nullptr});
    return head_loss(batch, tokens, pass, hidden_states(pass), 0);
  }

  LossSum loss_and_gradients(const Batch& batch, double gradient_scale,
                             const StepContext& step) override {
    const at::AutoGradMode guard(true);
    const TokenBatch tokens = read(batch);
    const SequencePass pass = make_pass(tokens, *network_, {true, &step});
    std::vector<at::Tensor> inputs;  // of each layer, when the layers are to be recomputed
    const at::Tensor embedded = network_->embed(pass);
    at::Tensor hidden = embedded;
    {
      const at::AutoGradMode recording(!is_checkpointing_);
      for (std::size_t i = 0; i < network_->depth(); ++i) {
        if (is_checkpointing_) inputs.push_back(hidden.detach());
        hidden = network_->layer(i, hidden, pass);
      }
    }
    // The head is differentiated by itself, chunk by chunk, into the gradient of `top`.
    const at::Tensor top = hidden.detach();
    top.set_requires_grad(is_checkpointing_ || hidden.requires_grad());
    const LossSum result = head_loss(batch, tokens, pass, top, gradient_scale);
    at::Tensor gradient = top.grad();
    if (!gradient.defined()) return result;
    for (std::size_t i = inputs.size(); i-- > 0;) {
      const at::Tensor input = inputs[i];
      inputs.pop_back();
      input.set_requires_grad(true);
      network_->layer(i, input, pass).backward(gradient);
      gradient = input.grad();
    }
    const at::Tensor& root = is_checkpointing_ ? embedded : hidden;
    if (root.requires_grad()) root.backward(gradient);
    return result;
  }

  std::vector<std::int64_t> generate(const std::vector<std::int64_t>& prompt,
                                     const GenerateOptions& options) override {
    if (!tokens_.is_causal)
      throw Error(ErrorKind::unsupported,
                  "generating text: the model predicts no next token, expected a causal language "
                  "model");
    const at::NoGradGuard guard;
    const std::int64_t wanted = std::max<std::int64_t>(0, options.max_new_tokens);
    check_positions(static_cast<std::int64_t>(prompt.size()) + wanted, tokens_);
    std::vector<std::int64_t> ids = prompt;
    std::vector<std::int64_t> result;
    while (static_cast<std::int64_t>(result.size()) < wanted) {
      if (options.cancel != nullptr && options.cancel->load())
        throw Error(ErrorKind::interrupted, "generating text: interrupted");
      const std::int64_t token = choose_token(last_logits(ids), options.temperature, options.seed,
                                              static_cast<std::int64_t>(result.size()));
      result.push_back(token);
      ids.push_back(token);
      const bool goes_on = !options.on_token || options.on_token(token);
      const bool is_stop = std::find(options.stop_tokens.begin(), options.stop_tokens.end(),
                                     token) != options.stop_tokens.end();
      if (!goes_on || is_stop) break;
    }
    return result;
  }

 private:
  // Frozen weights and factors have one norm for good; while factors train, the weights have.
  void keep_norms(bool is_training) {
    for (LoraSite* site : network_->layers().sites().layers)
      for (LoraBranch& branch : site->branches) {
        if (!branch.magnitude.defined()) continue;
        if (is_training)
          branch.weight_squares = dora_squares(*site);
        else
          branch.norm = dora_norm(*site, branch);
      }
  }

  // Attention that looks ahead must not see the padding of shorter rows.
  TokenBatch read(const Batch& batch) const {
    TokenBatch tokens = read_tokens(batch, tokens_);
    if (batch.lengths.empty()) return tokens;
    const std::int64_t padding = network_->padding();
    const bool is_token = padding >= 0 && padding < tokens_.vocab_size;
    const bool is_masked = !network_->is_causal();
    if (is_masked) tokens.mask.assign(tokens.ids.size(), 1);
    for (std::int64_t row = 0; row < tokens.batch; ++row) {
      const std::int64_t begin =
          row * tokens.time + std::min(batch.lengths[static_cast<std::size_t>(row)], tokens.time);
      const std::int64_t count = (row + 1) * tokens.time - begin;
      if (is_token) std::fill_n(tokens.ids.begin() + begin, count, padding);
      if (is_masked) std::fill_n(tokens.mask.begin() + begin, count, 0);
    }
    return tokens;
  }

  at::Tensor hidden_states(const SequencePass& pass) {
    at::Tensor hidden = network_->embed(pass);
    for (std::size_t i = 0; i < network_->depth(); ++i) hidden = network_->layer(i, hidden, pass);
    return hidden;
  }

  LossSum head_loss(const Batch& batch, const TokenBatch& tokens, const SequencePass& pass,
                    const at::Tensor& hidden, double gradient_scale) {
    if (tokens_.head.kind == HeadConfig::Kind::sequence_classification)
      return classifier_loss(*network_, pass, hidden, batch.y, gradient_scale);
    return position_loss(*network_, pass, hidden, read_labels(batch, tokens, tokens_),
                         gradient_scale);
  }

  at::Tensor last_logits(const std::vector<std::int64_t>& ids) {
    const auto length = static_cast<std::int64_t>(ids.size());
    const TokenBatch tokens =
        read_tokens({{"input_ids", Tensor::from_i64({1, length}, ids)}}, tokens_);
    const SequencePass pass = make_pass(tokens, *network_, {are_adapters_enabled_, nullptr});
    const at::Tensor last = hidden_states(pass).narrow(1, length - 1, 1);
    return network_->logits(last, pass).contiguous();
  }

  ModelOptions options_;
  std::unique_ptr<Network> network_;
  TokenModel tokens_;
  FlatParameters flat_;
  bool are_adapters_enabled_ = true;
  bool is_checkpointing_ = false;
};

}  // namespace

std::unique_ptr<Model> make_generic(const ModelOptions& options, std::unique_ptr<Network> network) {
  return std::make_unique<GenericModel>(options, std::move(network));
}

bool needs_generic(const ModelOptions& options) {
  return std::any_of(options.adapters.begin(), options.adapters.end(), [](const Adapter* adapter) {
    return !adapter->tokens.empty() || std::any_of(adapter->modules.begin(), adapter->modules.end(),
                                                   [](const LoraModule& module) {
                                                     return module.magnitude ||
                                                            module.kind == LayerKind::embedding;
                                                   });
  });
}

}  // namespace lora::engine
