#include <ATen/Parallel.h>

#include "engine/kernels/kernels.h"
#include "engine/kernels/vector.h"

namespace lora::engine {
namespace {

constexpr std::int64_t kGrainElements = 16384;
constexpr float kRootTwoOverPi = 0.7978845608028654F;
constexpr float kCubic = 0.044715F;

/// value = activation(gate), slope its derivative.
template <Gate kind, typename Value>
LORA_INLINE void activate(const Value& gate, Value& value, Value& slope) {
  if constexpr (kind == Gate::silu) {
    const Value s = 1.0F / (1.0F + exp_of(Value(-gate)));
    value = gate * s;
    slope = s * (1.0F + gate * (1.0F - s));
  } else {
    const Value square = gate * gate;
    const Value t = tanh_of(Value(kRootTwoOverPi * gate * (1.0F + kCubic * square)));
    value = 0.5F * gate * (1.0F + t);
    slope = 0.5F * (1.0F + t) +
            0.5F * gate * (1.0F - t * t) * (kRootTwoOverPi * (1.0F + 3.0F * kCubic * square));
  }
}

template <Gate kind, typename T>
LORA_KERNEL void forward_row(const T* gate, const T* up, std::int64_t width, T* out) {
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    Floats value, slope;
    activate<kind>(load(gate + i), value, slope);
    store(out + i, value * load(up + i));
  }
  for (; i < width; ++i) {
    float value, slope;
    activate<kind>(load_one(gate + i), value, slope);
    store_one(out + i, value * load_one(up + i));
  }
}

template <Gate kind, typename T>
LORA_KERNEL void backward_row(const T* g, std::int64_t width, T* gate, T* up) {
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    Floats value, slope;
    activate<kind>(load(gate + i), value, slope);
    const Floats d = load(g + i);
    store(gate + i, d * load(up + i) * slope);
    store(up + i, d * value);
  }
  for (; i < width; ++i) {
    float value, slope;
    activate<kind>(load_one(gate + i), value, slope);
    const float d = load_one(g + i);
    store_one(gate + i, d * load_one(up + i) * slope);
    store_one(up + i, d * value);
  }
}

template <typename Body>
void for_rows(const GateShape& shape, Body&& body) {
  const std::int64_t grain = 1 + kGrainElements / (shape.width + 1);
  at::parallel_for(0, shape.rows, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) body(row * shape.stride, row * shape.width);
  });
}

}  // namespace

template <typename T>
void gated(Gate kind, const T* gate, const T* up, const GateShape& shape, T* out) {
  for_rows(shape, [&](std::int64_t strided, std::int64_t dense) {
    if (kind == Gate::silu)
      forward_row<Gate::silu>(gate + strided, up + strided, shape.width, out + dense);
    else
      forward_row<Gate::gelu_tanh>(gate + strided, up + strided, shape.width, out + dense);
  });
}

template <typename T>
void gated_backward(Gate kind, const T* g, const GateShape& shape, T* gate, T* up) {
  for_rows(shape, [&](std::int64_t strided, std::int64_t dense) {
    if (kind == Gate::silu)
      backward_row<Gate::silu>(g + dense, shape.width, gate + strided, up + strided);
    else
      backward_row<Gate::gelu_tanh>(g + dense, shape.width, gate + strided, up + strided);
  });
}

template void gated(Gate, const float*, const float*, const GateShape&, float*);
template void gated(Gate, const Bf16*, const Bf16*, const GateShape&, Bf16*);
template void gated_backward(Gate, const float*, const GateShape&, float*, float*);
template void gated_backward(Gate, const Bf16*, const GateShape&, Bf16*, Bf16*);

}  // namespace lora::engine
