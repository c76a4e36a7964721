#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "engine/kernels/kernels.h"
#include "engine/kernels/vector.h"

namespace lora::engine {
namespace {

LORA_KERNEL void attend(const float* q, const float* keys, const float* values, std::int64_t length,
                        std::int64_t dim, const ScoreRule& rule, float* scores, float* out) {
  const std::int64_t body = dim / kLanes * kLanes;
  float top = 0;
  for (std::int64_t t = 0; t < length; ++t) {
    const float* key = keys + t * dim;
    Floats sums{};
    for (std::int64_t i = 0; i < body; i += kLanes) sums += load(q + i) * load(key + i);
    float score = sum_lanes(sums);
    for (std::int64_t i = body; i < dim; ++i) score += q[i] * key[i];
    scores[t] = score * rule.scale;
    if (rule.cap != 0) scores[t] = rule.cap * tanh_of(scores[t] / rule.cap);
    top = t == 0 ? scores[t] : std::max(top, scores[t]);
  }
  float total = 0;
  for (std::int64_t t = 0; t < length; ++t) {
    scores[t] = exp_of(scores[t] - top);
    total += scores[t];
  }
  std::fill(out, out + dim, 0.0F);
  for (std::int64_t t = 0; t < length; ++t) {
    const float p = scores[t] / total;
    const float* value = values + t * dim;
    for (std::int64_t i = 0; i < body; i += kLanes)
      store(out + i, load(out + i) + load(value + i) * p);
    for (std::int64_t i = body; i < dim; ++i) out[i] += value[i] * p;
  }
}

}  // namespace

void cached_attention(const float* q, const CachedKeys& cache, const HeadShape& shape,
                      const ScoreRule& rule, float* out) {
  const std::int64_t heads = shape.kv_heads * shape.group;
  const std::int64_t length = cache.end - cache.begin;
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, length));
  at::parallel_for(0, heads, grain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> scores(static_cast<std::size_t>(length));
    for (std::int64_t head = begin; head < end; ++head) {
      const std::int64_t offset = (head / shape.group * cache.capacity + cache.begin) * shape.dim;
      attend(q + head * shape.dim, cache.keys + offset, cache.values + offset, length, shape.dim,
             rule, scores.data(), out + head * shape.dim);
    }
  });
}

}  // namespace lora::engine
