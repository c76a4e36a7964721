// A transformer of any family, in the steps that training needs to take apart.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "engine/generic/layer_store.h"
#include "engine/token_batch.h"

namespace lora::engine {

/// One batch on its way through a network.
struct SequencePass {
  Pass pass;
  at::Tensor ids;            ///< I64 [batch, time]
  at::Tensor token_types;    ///< I64 [batch, time]; undefined: all 0
  at::Tensor positions;      ///< I64 [batch, time]; undefined: 0, 1, ... in every row
  std::int64_t longest = 0;  ///< one more than the highest position
  at::Tensor mask;  ///< bool [batch, 1, 1 or time, time], true where attention may look; may
                    ///< be undefined. Rows that see nothing attend to nothing (zeros).
};

class Network {
 public:
  virtual ~Network() = default;
  virtual LayerStore& layers() = 0;
  virtual std::size_t depth() const = 0;
  virtual TokenModel tokens() const = 0;
  virtual std::int64_t token_types() const { return 0; }  ///< 0: token_type_ids are no input
  virtual bool is_causal() const = 0;                     ///< attention looks back only
  /// Token that shorter rows of a training batch end with, which may be none of the vocabulary.
  virtual std::int64_t padding() const { return 0; }

  /// Hidden states [batch, time, hidden] in front of the first layer.
  virtual at::Tensor embed(const SequencePass& pass) = 0;
  virtual at::Tensor layer(std::size_t index, const at::Tensor& hidden,
                           const SequencePass& pass) = 0;
  /// Logits behind the last layer. A language model maps hidden states of any leading shape to
  /// [..., vocabulary], a token classifier to [..., labels]; a sequence classifier needs all of
  /// [batch, time, hidden] and gives [batch, labels].
  virtual at::Tensor logits(const at::Tensor& hidden, const SequencePass& pass) = 0;
};

/// Tensors of a batch, with the mask that its padding and the network's attention need. `tokens`
/// must outlive the result.
SequencePass make_pass(const TokenBatch& tokens, const Network& network, const Pass& pass);

std::unique_ptr<Network> make_gpt2_network(const ModelOptions& options);
std::unique_ptr<Network> make_bert_network(const ModelOptions& options);
std::unique_ptr<Network> make_gpt_neox_network(const ModelOptions& options);
std::unique_ptr<Network> make_decoder_network(const ModelOptions& options);

}  // namespace lora::engine
