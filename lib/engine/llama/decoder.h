// One new token at a time with a key-value cache.
#pragma once

#include "engine/llama/layer.h"
#include "engine/llama/network.h"

namespace lora::engine {

/// Keys (rotated) and values of all positions so far, per layer [kv_heads, capacity, dim].
struct KeyValueCache {
  KeyValueCache(const DecoderConfig& config, std::int64_t capacity);

  /// Copies what a forward pass over the positions 0 .. time - 1 of one row left in `state`.
  void store(std::size_t layer, const LayerState& state);

  std::vector<at::Tensor> keys, values;
  std::int64_t capacity = 0;
  std::int64_t length = 0;  ///< positions filled in every layer
};

/// logits [1, vocabulary] of the token at position cache.length, whose keys and values join the
/// cache. context.batch and time are 1.
void decode_token(const LlamaNetwork& network, const LayerContext& context, std::int64_t token,
                  KeyValueCache& cache, at::Tensor& logits);

/// Row `ids[i]` of the embedding into x [ids, hidden].
void embed(const LlamaNetwork& network, const Pass& pass, const std::vector<std::int64_t>& ids,
           at::Tensor& x);

}  // namespace lora::engine
