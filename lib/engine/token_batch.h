// Token inputs, checked before anything is computed.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/batch.h"
#include "lora/checkpoint/model_config.h"

namespace lora::engine {

/// [batch, time] token ids; `mask` is empty when every position is present.
struct TokenBatch {
  std::int64_t batch = 0, time = 0;
  std::vector<std::int64_t> ids;
  std::vector<std::uint8_t> mask;
  std::vector<std::int64_t> types;  ///< token types, empty: all 0
  /// [batch, time] column in which the document of a position begins, see Batch; empty: every row
  /// is one document.
  std::vector<std::int32_t> starts;
  const std::uint8_t* key_mask() const { return mask.empty() ? nullptr : mask.data(); }
};

/// Number of positions that the longest document takes; `time` when every row is one.
std::int64_t longest_document(const TokenBatch& tokens);

/// Supervised positions of a batch: `rows` index the flattened hidden states [batch * time], and
/// `targets` are the tokens or classes to be found there.
struct Supervision {
  std::vector<std::int64_t> rows;
  std::vector<std::int64_t> targets;
};

/// From `input_ids` and optionally `attention_mask`. Throws Error(incompatible) for other inputs,
/// shapes, dtypes, token ids outside the vocabulary, or more positions than the model has.
/// `token_types` > 0: token_type_ids below that number are an input too.
TokenBatch read_tokens(const TensorMap& inputs, const TokenModel& model,
                       std::int64_t token_types = 0);

/// A batch of the training loop, cut to its longest row; right padding needs no mask under causal
/// attention. Throws as read_tokens does, and Error(incompatible) for starts that lie behind their
/// position or go back.
TokenBatch read_tokens(const Batch& batch, const TokenModel& model);

/// Positions whose next token, of the same document, carries a label; of a model that is not
/// causal, those with a label.
Supervision read_labels(const Batch& batch, const TokenBatch& tokens, const TokenModel& model);

/// Throws Error(incompatible) unless 0 <= positions <= model.max_positions.
void check_positions(std::int64_t positions, const TokenModel& model);

}  // namespace lora::engine
