// Final norm, output head and next-token loss, in chunks of rows: the logits of a whole batch never
// exist at once.
#pragma once

#include "engine/llama/layer.h"
#include "engine/model.h"
#include "engine/token_batch.h"

namespace lora::engine {

/// logits [rows, vocabulary] of hidden [rows, hidden].
void head_logits(const LlamaNetwork& network, const LayerContext& context, const at::Tensor& hidden,
                 at::Tensor& logits);

/// Sum of the losses. With `gradient_scale` != 0 also adds to the gradients of head and norm, and,
/// when `g` is not null, writes gradient_scale * d sum / d hidden into it (zero elsewhere).
LossSum head_loss(const LlamaNetwork& network, const LayerContext& context,
                  const at::Tensor& hidden, const Supervision& supervision, double gradient_scale,
                  at::Tensor* g);

}  // namespace lora::engine
