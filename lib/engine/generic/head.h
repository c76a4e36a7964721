// Which head a model has, and the loss on it.
#pragma once

#include <string>

#include "engine/generic/network.h"

namespace lora::engine {

/// The head of the configuration, or a sequence classifier when an adapter brings the weight of
/// `classifier_path` along: PEFT's adapters for classification are trained on language models whose
/// class was changed, and hold the new head.
HeadConfig head_of(const HeadConfig& config, const std::string& classifier_path,
                   const ModelOptions& options);

/// Sum of the next-token losses over `supervision` of hidden states [batch, time, hidden], in
/// chunks of rows. With gradient_scale != 0 differentiates gradient_scale times that sum.
LossSum language_loss(Network& network, const SequencePass& pass, const at::Tensor& hidden,
                      const Supervision& supervision, double gradient_scale);

/// Sum of a classifier's losses as transformers computes them: cross entropy for I64 classes
/// [batch]; squared error (regression) or binary cross entropy for F32 values. Differentiates as
/// language_loss does.
LossSum classifier_loss(Network& network, const SequencePass& pass, const at::Tensor& hidden,
                        const Tensor& y, double gradient_scale);

}  // namespace lora::engine
