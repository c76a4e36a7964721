#include "engine/llama/cache.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace lora::engine {

KeyValueCache::KeyValueCache(const DecoderConfig& config, std::int64_t capacity)
    : capacity_(capacity) {
  for (std::int64_t i = 0; i < config.num_layers; ++i)
    for (std::vector<at::Tensor>* side : {&keys_, &values_})
      side->push_back(at::empty({config.num_kv_heads, capacity, config.head_dim}, at::kFloat));
}

void KeyValueCache::store(std::size_t layer, const at::Tensor& k, const at::Tensor& v) {
  const std::int64_t time = k.size(2);
  keys_[layer].narrow(1, length, time).copy_(k.view({-1, time, k.size(4)}));
  values_[layer].narrow(1, length, time).copy_(v.view({-1, time, v.size(4)}));
}

void KeyValueCache::attend(std::size_t layer, const at::Tensor& q, const HeadShape& shape,
                           const ScoreRule& rule, std::int64_t window, at::Tensor& out) const {
  const std::int64_t begin = window == 0 ? 0 : std::max<std::int64_t>(0, length + 1 - window);
  cached_attention(q.const_data_ptr<float>(),
                   {keys_[layer].const_data_ptr<float>(), values_[layer].const_data_ptr<float>(),
                    capacity_, begin, length + 1},
                   shape, rule, out.mutable_data_ptr<float>());
}

}  // namespace lora::engine
