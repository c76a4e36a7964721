// Final norm, output head and next-token loss, in chunks of rows: the logits of a whole batch never
// exist at once.
#pragma once

#include "engine/llama/layer.h"
#include "engine/model.h"

namespace lora::engine {

/// Supervised positions of a batch: `rows` index the flattened hidden states [batch * time], and
/// `targets` are the next tokens there.
struct Supervision {
  std::vector<std::int64_t> rows;
  std::vector<std::int64_t> targets;
};

/// logits [rows, vocabulary] of hidden [rows, hidden].
void head_logits(const LlamaNetwork& network, const LayerContext& context, const at::Tensor& hidden,
                 at::Tensor& logits);

/// Sum of the losses. With `gradient_scale` != 0 also adds to the gradients of head and norm, and,
/// when `g` is not null, writes gradient_scale * d sum / d hidden into it (zero elsewhere).
LossSum head_loss(const LlamaNetwork& network, const LayerContext& context,
                  const at::Tensor& hidden, const Supervision& supervision, double gradient_scale,
                  at::Tensor* g);

}  // namespace lora::engine
