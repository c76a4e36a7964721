#include <ATen/Parallel.h>

#include "engine/kernels/kernels.h"
#include "engine/kernels/vector.h"

namespace lora::engine {
namespace {

constexpr std::int64_t kGrain = 16384;

template <typename Value>
LORA_INLINE Value sigmoid(const Value& x) {
  return 1.0F / (1.0F + exp_of(Value(-x)));
}

LORA_KERNEL void forward_range(const float* gate, const float* up, std::int64_t begin,
                               std::int64_t end, float* out) {
  std::int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    const Floats g = load(gate + i);
    store(out + i, g * sigmoid(g) * load(up + i));
  }
  for (; i < end; ++i) out[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

template <typename Value>
LORA_INLINE void gradients(const Value& d, Value& gate, Value& up) {
  const Value s = sigmoid(gate);
  const Value gate_gradient = d * up * s * (1.0F + gate * (1.0F - s));
  up = d * gate * s;
  gate = gate_gradient;
}

LORA_KERNEL void backward_range(const float* g, std::int64_t begin, std::int64_t end, float* gate,
                                float* up) {
  std::int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    Floats gates = load(gate + i);
    Floats ups = load(up + i);
    gradients(load(g + i), gates, ups);
    store(gate + i, gates);
    store(up + i, ups);
  }
  for (; i < end; ++i) gradients(g[i], gate[i], up[i]);
}

}  // namespace

void swiglu(const float* gate, const float* up, std::int64_t count, float* out) {
  at::parallel_for(0, count, kGrain, [=](std::int64_t begin, std::int64_t end) {
    forward_range(gate, up, begin, end, out);
  });
}

void swiglu_backward(const float* g, std::int64_t count, float* gate, float* up) {
  at::parallel_for(0, count, kGrain, [=](std::int64_t begin, std::int64_t end) {
    backward_range(g, begin, end, gate, up);
  });
}

}  // namespace lora::engine
