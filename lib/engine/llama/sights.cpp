#include "engine/llama/sights.h"

#include <algorithm>

namespace lora::engine {
namespace {

Rotation rotation_of(const RotaryTable& table) {
  Rotation rotation;
  rotation.cos = table.cos(0);
  rotation.sin = table.sin(0);
  rotation.half = table.half();
  return rotation;
}

}  // namespace

Sights::Sights(const DecoderConfig& config)
    : window_(config.slides.empty() ? 0 : config.sliding_window),
      rotary_(config.rope, config.head_dim) {
  if (config.sliding_rope) sliding_rotary_.emplace(*config.sliding_rope, config.head_dim);
}

bool Sights::reserve(std::int64_t positions) {
  bool has_changed = rotary_.reserve(positions);
  if (sliding_rotary_) has_changed = sliding_rotary_->reserve(positions) || has_changed;
  return has_changed;
}

std::array<Sight, 2> Sights::of(const TokenBatch& tokens, std::int64_t past) {
  reserve(past + longest_document(tokens));
  std::array<Sight, 2> sights;
  sights[0].rotation = rotation_of(rotary_);
  sights[1].rotation = rotation_of(sliding_rotary_ ? *sliding_rotary_ : rotary_);
  sights[1].window = window_;

  const auto count = static_cast<std::size_t>(tokens.batch * tokens.time);
  const bool has_documents = !tokens.starts.empty();
  const auto column = [&](std::size_t i) {
    return static_cast<std::int64_t>(i) % std::max<std::int64_t>(1, tokens.time);
  };
  const auto start = [&](std::size_t i) -> std::int64_t {
    return has_documents ? tokens.starts[i] : 0;
  };
  if (has_documents || past > 0) {
    positions_.resize(count);
    for (std::size_t i = 0; i < count; ++i)
      positions_[i] = static_cast<std::int32_t>(past + column(i) - start(i));
  }
  for (std::size_t kind = 0; kind < sights.size(); ++kind) {
    Sight& sight = sights[kind];
    if (has_documents || past > 0) sight.rotation.positions = positions_.data();
    const bool hides = sight.window != 0 && sight.window < tokens.time;
    if (!hides && !has_documents) continue;
    first_visible_[kind].resize(count);
    for (std::size_t i = 0; i < count; ++i) {
      const std::int64_t first = hides ? column(i) + 1 - sight.window : 0;
      first_visible_[kind][i] = static_cast<std::int32_t>(std::max(first, start(i)));
    }
    sight.first_visible = first_visible_[kind].data();
  }
  return sights;
}

}  // namespace lora::engine
