// Which head a model has, and the loss on it.
#pragma once

#include <optional>
#include <string>

#include "engine/generic/network.h"

namespace lora::engine {

/// Where a family has the last layer of its classifiers; empty: it has no such classifier.
struct ClassifierPaths {
  std::string sequence, token;
};

/// The head of the configuration, or a classifier when an adapter brings the weight of its last
/// layer along: PEFT's adapters for classification are trained on language models whose class was
/// changed, and hold the new head. Where both have one path, the adapter's task_type tells.
HeadConfig head_of(const HeadConfig& config, const ClassifierPaths& paths,
                   const ModelOptions& options);

/// Rows [batch, hidden] of hidden states at the last token of each sequence that is not padding,
/// found by its id as transformers does (the attention mask has no say). Without a padding id the
/// last position; throws Error(incompatible) for more than one sequence then.
at::Tensor last_tokens(const at::Tensor& hidden, const SequencePass& pass,
                       const std::optional<std::int64_t>& padding);

/// Sum of the losses over `supervision` of hidden states [batch, time, hidden], in chunks of rows.
/// With gradient_scale != 0 differentiates gradient_scale times that sum.
LossSum position_loss(Network& network, const SequencePass& pass, const at::Tensor& hidden,
                      const Supervision& supervision, double gradient_scale);

/// Sum of a classifier's losses as transformers computes them: cross entropy for I64 classes
/// [batch]; squared error (regression) or binary cross entropy for F32 values. Differentiates as
/// language_loss does.
LossSum classifier_loss(Network& network, const SequencePass& pass, const at::Tensor& hidden,
                        const Tensor& y, double gradient_scale);

}  // namespace lora::engine
