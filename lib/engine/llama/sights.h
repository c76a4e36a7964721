// What each layer may look at and how positions turn, for the batch at hand.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "engine/llama/layer.h"
#include "engine/llama/rotary.h"
#include "engine/token_batch.h"

namespace lora::engine {

class Sights {
 public:
  explicit Sights(const DecoderConfig& config);

  /// Makes the tables good for sequences of this length; true when that changed the angles of
  /// positions that they already held.
  bool reserve(std::int64_t positions);
  /// Of layers without a window, and with one, for tokens behind `past` others of the same
  /// sequence. Valid until the next call.
  std::array<Sight, 2> of(const TokenBatch& tokens, std::int64_t past = 0);

 private:
  std::int64_t window_;
  RotaryTable rotary_;
  std::optional<RotaryTable> sliding_rotary_;
  std::vector<std::int32_t> positions_;
  std::array<std::vector<std::int32_t>, 2> first_visible_;
};

}  // namespace lora::engine
