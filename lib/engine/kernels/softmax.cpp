#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>

#include "engine/kernels/kernels.h"
#include "engine/kernels/vector.h"

namespace lora::engine {
namespace {

constexpr float kHidden = -std::numeric_limits<float>::infinity();

// row = cap * tanh(scale / cap * row), slopes = 1 - tanh^2.
LORA_KERNEL void cap_row(float* row, std::int64_t count, const ScoreRule& rule, float* slopes) {
  const float inner = rule.scale / rule.cap;
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Floats t = tanh_of(Floats(load(row + i) * inner));
    store(row + i, t * rule.cap);
    store(slopes + i, 1.0F - t * t);
  }
  for (; i < count; ++i) {
    const float t = tanh_of(row[i] * inner);
    row[i] = t * rule.cap;
    slopes[i] = 1.0F - t * t;
  }
}

// Softmax of scale * row over `count` keys; mask as in ScoreBlock, or null.
LORA_KERNEL void softmax_row(float* row, std::int64_t count, float scale,
                             const std::uint8_t* mask) {
  if (mask != nullptr)
    for (std::int64_t i = 0; i < count; ++i)
      if (mask[i] == 0) row[i] = kHidden;
  const std::int64_t body = count / kLanes * kLanes;
  Floats tops = broadcast(kHidden);
  for (std::int64_t i = 0; i < body; i += kLanes) tops = max_of(tops, load(row + i));
  float top = max_lane(tops);
  for (std::int64_t i = body; i < count; ++i) top = std::max(top, row[i]);
  if (top == kHidden) {
    std::fill(row, row + count, 0.0F);
    return;
  }
  Floats sums{};
  for (std::int64_t i = 0; i < body; i += kLanes) {
    const Floats e = exp_of((load(row + i) - top) * scale);
    sums += e;
    store(row + i, e);
  }
  float sum = sum_lanes(sums);
  for (std::int64_t i = body; i < count; ++i) {
    row[i] = exp_of((row[i] - top) * scale);
    sum += row[i];
  }
  const float inverse = 1.0F / sum;
  for (std::int64_t i = 0; i < body; i += kLanes) store(row + i, load(row + i) * inverse);
  for (std::int64_t i = body; i < count; ++i) row[i] *= inverse;
  if (mask != nullptr)
    for (std::int64_t i = 0; i < count; ++i)
      if (mask[i] == 0) row[i] = 0;
}

LORA_KERNEL void backward_row(const float* p, const float* slopes, std::int64_t count, float scale,
                              float* dp) {
  const std::int64_t body = count / kLanes * kLanes;
  Floats sums{};
  for (std::int64_t i = 0; i < body; i += kLanes) sums += load(p + i) * load(dp + i);
  float sum = sum_lanes(sums);
  for (std::int64_t i = body; i < count; ++i) sum += p[i] * dp[i];
  for (std::int64_t i = 0; i < body; i += kLanes) {
    const Floats d = load(p + i) * (load(dp + i) - sum) * scale;
    store(dp + i, slopes == nullptr ? d : d * load(slopes + i));
  }
  for (std::int64_t i = body; i < count; ++i)
    dp[i] = p[i] * (dp[i] - sum) * scale * (slopes == nullptr ? 1.0F : slopes[i]);
}

// Calls body(offset of the first visible score, number of them, first visible key) for each row,
// and clears what stands before and behind them in every matrix of `cleared`.
template <typename Body>
void for_rows(const ScoreBlock& block, float* cleared, Body&& body) {
  at::parallel_for(0, block.queries * block.group, 32, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t position = block.first_query + row / block.group;
      const std::int64_t first =
          block.first_visible == nullptr
              ? 0
              : std::max<std::int64_t>(0, block.first_visible[position] - block.first_key);
      const std::int64_t last = std::min(block.keys, position + 1 - block.first_key);
      const std::int64_t count = std::max<std::int64_t>(0, last - first);
      float* scores = cleared + row * block.keys;
      std::fill(scores, scores + first, 0.0F);
      std::fill(scores + first + count, scores + block.keys, 0.0F);
      body(row * block.keys + first, count, block.first_key + first);
    }
  });
}

}  // namespace

void causal_softmax(const ScoreBlock& block, const ScoreRule& rule, float* scores, float* slopes) {
  for_rows(block, scores, [&](std::int64_t offset, std::int64_t count, std::int64_t key) {
    if (rule.cap != 0) cap_row(scores + offset, count, rule, slopes + offset);
    softmax_row(scores + offset, count, rule.cap == 0 ? rule.scale : 1.0F,
                block.key_mask == nullptr ? nullptr : block.key_mask + key);
  });
}

void causal_softmax_backward(const ScoreBlock& block, const ScoreRule& rule, const float* p,
                             const float* slopes, float* dp) {
  for_rows(block, dp, [&](std::int64_t offset, std::int64_t count, std::int64_t) {
    backward_row(p + offset, slopes == nullptr ? nullptr : slopes + offset, count, rule.scale,
                 dp + offset);
  });
}

}  // namespace lora::engine
