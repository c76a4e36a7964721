#include <ATen/Parallel.h>

#include <algorithm>

#include "engine/kernels/kernels.h"
#include "engine/kernels/vector.h"

namespace lora::engine {
namespace {

constexpr std::int64_t kGrain = 16384;

template <typename T>
LORA_KERNEL void add_range(const float* y, const T* x, std::int64_t count, float scale,
                           float* out) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, load(y + i) + load(x + i) * scale);
  for (; i < count; ++i) out[i] = y[i] + load_one(x + i) * scale;
}

template <typename In, typename Out>
LORA_KERNEL void convert_range(const In* x, std::int64_t count, float scale, Out* out) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, load(x + i) * scale);
  for (; i < count; ++i) store_one(out + i, load_one(x + i) * scale);
}

LORA_KERNEL void cap_range(float* x, std::int64_t count, float cap) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(x + i, tanh_of(Floats(load(x + i) / cap)) * cap);
  for (; i < count; ++i) x[i] = tanh_of(x[i] / cap) * cap;
}

LORA_KERNEL void cap_backward_range(const float* capped, std::int64_t count, float cap, float* g) {
  const float inverse = 1.0F / cap;
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Floats t = load(capped + i) * inverse;
    store(g + i, load(g + i) * (1.0F - t * t));
  }
  for (; i < count; ++i) g[i] *= 1.0F - capped[i] * inverse * (capped[i] * inverse);
}

template <typename Body>
void in_parallel(std::int64_t count, Body&& body) {
  at::parallel_for(0, count, kGrain,
                   [&](std::int64_t begin, std::int64_t end) { body(begin, end - begin); });
}

}  // namespace

template <typename T>
void add_scaled(const float* y, const T* x, std::int64_t count, float scale, float* out) {
  in_parallel(count, [&](std::int64_t begin, std::int64_t n) {
    add_range(y + begin, x + begin, n, scale, out + begin);
  });
}

template <typename In, typename Out>
void convert_all(const In* x, std::int64_t count, float scale, Out* out) {
  in_parallel(count, [&](std::int64_t begin, std::int64_t n) {
    convert_range(x + begin, n, scale, out + begin);
  });
}

void soft_cap(float cap, std::int64_t count, float* logits) {
  in_parallel(count,
              [&](std::int64_t begin, std::int64_t n) { cap_range(logits + begin, n, cap); });
}

void soft_cap_backward(float cap, const float* capped, std::int64_t count, float* g) {
  in_parallel(count, [&](std::int64_t begin, std::int64_t n) {
    cap_backward_range(capped + begin, n, cap, g + begin);
  });
}

template void add_scaled(const float*, const float*, std::int64_t, float, float*);
template void add_scaled(const float*, const Bf16*, std::int64_t, float, float*);
template void convert_all(const float*, std::int64_t, float, float*);
template void convert_all(const float*, std::int64_t, float, Bf16*);
template void convert_all(const Bf16*, std::int64_t, float, float*);
template void convert_all(const Bf16*, std::int64_t, float, Bf16*);

}  // namespace lora::engine
