#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>

#include "engine/kernels/kernels.h"
#include "engine/kernels/vector.h"

namespace lora::engine {
namespace {

LORA_KERNEL void softmax_row(float* row, std::int64_t visible, std::int64_t keys, float scale,
                             const std::uint8_t* mask) {
  constexpr float kHidden = -std::numeric_limits<float>::infinity();
  if (mask != nullptr)
    for (std::int64_t i = 0; i < visible; ++i)
      if (mask[i] == 0) row[i] = kHidden;
  const std::int64_t body = visible / kLanes * kLanes;
  Floats tops = broadcast(kHidden);
  for (std::int64_t i = 0; i < body; i += kLanes) tops = max_of(tops, load(row + i));
  float top = max_lane(tops);
  for (std::int64_t i = body; i < visible; ++i) top = std::max(top, row[i]);
  if (top == kHidden) {
    std::fill(row, row + keys, 0.0F);
    return;
  }
  Floats sums{};
  for (std::int64_t i = 0; i < body; i += kLanes) {
    const Floats e = exp_of((load(row + i) - top) * scale);
    sums += e;
    store(row + i, e);
  }
  float sum = sum_lanes(sums);
  for (std::int64_t i = body; i < visible; ++i) {
    row[i] = exp_of((row[i] - top) * scale);
    sum += row[i];
  }
  const float inverse = 1.0F / sum;
  for (std::int64_t i = 0; i < body; i += kLanes) store(row + i, load(row + i) * inverse);
  for (std::int64_t i = body; i < visible; ++i) row[i] *= inverse;
  if (mask != nullptr)
    for (std::int64_t i = 0; i < visible; ++i)
      if (mask[i] == 0) row[i] = 0;
  std::fill(row + visible, row + keys, 0.0F);
}

LORA_KERNEL void backward_row(const float* p, float* dp, std::int64_t visible, std::int64_t keys,
                              float scale) {
  const std::int64_t body = visible / kLanes * kLanes;
  Floats sums{};
  for (std::int64_t i = 0; i < body; i += kLanes) sums += load(p + i) * load(dp + i);
  float sum = sum_lanes(sums);
  for (std::int64_t i = body; i < visible; ++i) sum += p[i] * dp[i];
  for (std::int64_t i = 0; i < body; i += kLanes)
    store(dp + i, load(p + i) * (load(dp + i) - sum) * scale);
  for (std::int64_t i = body; i < visible; ++i) dp[i] = p[i] * (dp[i] - sum) * scale;
  std::fill(dp + visible, dp + keys, 0.0F);
}

template <typename Row>
void for_rows(const ScoreBlock& block, Row&& row) {
  const std::int64_t per_matrix = block.queries * block.group;
  at::parallel_for(
      0, block.batch * block.kv_heads * per_matrix, 32, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const std::int64_t matrix = i / per_matrix;
          const std::int64_t query = i % per_matrix / block.group;
          const std::int64_t visible = std::min(block.keys, block.first_query + query + 1);
          row(i * block.keys, visible, matrix / block.kv_heads);
        }
      });
}

}  // namespace

void causal_softmax(const ScoreBlock& block, float scale, float* scores) {
  for_rows(block, [&](std::int64_t offset, std::int64_t visible, std::int64_t batch) {
    const std::uint8_t* mask =
        block.key_mask == nullptr ? nullptr : block.key_mask + batch * block.mask_stride;
    softmax_row(scores + offset, visible, block.keys, scale, mask);
  });
}

void causal_softmax_backward(const ScoreBlock& block, float scale, const float* p, float* dp) {
  for_rows(block, [&](std::int64_t offset, std::int64_t visible, std::int64_t) {
    backward_row(p + offset, dp + offset, visible, block.keys, scale);
  });
}

}  // namespace lora::engine
