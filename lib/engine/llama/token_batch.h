// Token inputs, checked before anything is computed.
#pragma once

#include <optional>
#include <vector>

#include "engine/batch.h"
#include "engine/llama/head.h"
#include "lora/checkpoint/model_config.h"

namespace lora::engine {

/// [batch, time] token ids; `mask` is empty when every position is present.
struct TokenBatch {
  std::int64_t batch = 0, time = 0;
  std::vector<std::int64_t> ids;
  std::vector<std::uint8_t> mask;
  const std::uint8_t* key_mask() const { return mask.empty() ? nullptr : mask.data(); }
};

/// From `input_ids` and optionally `attention_mask`. Throws Error(incompatible) for other inputs,
/// shapes, dtypes, token ids outside the vocabulary, or more positions than the model has.
TokenBatch read_tokens(const TensorMap& inputs, const DecoderConfig& config);

/// A batch of the training loop, cut to its longest row; right padding needs no mask under causal
/// attention. Throws as read_tokens does.
TokenBatch read_tokens(const Batch& batch, const DecoderConfig& config);

/// Positions whose next token carries a label.
Supervision read_labels(const Batch& batch, const TokenBatch& tokens, const DecoderConfig& config);

/// Throws Error(incompatible) unless 0 <= positions <= max_position_embeddings.
void check_positions(std::int64_t positions, const DecoderConfig& config);

}  // namespace lora::engine
