#include <ATen/Parallel.h>

#include <cmath>

#include "engine/kernels/kernels.h"
#include "engine/kernels/vector.h"

namespace lora::engine {
namespace {

constexpr std::int64_t kGrain = 16;

struct Range {
  std::int64_t begin, end;
};

template <typename In, typename Out>
LORA_KERNEL void forward_range(const In* x, const NormWeight& weight, const Range& range,
                               Out* out) {
  const std::int64_t width = weight.width;
  const std::int64_t body = width / kLanes * kLanes;
  const float* scale = weight.values;
  for (std::int64_t row = range.begin; row < range.end; ++row) {
    const In* in = x + row * width;
    Out* result = out + row * width;
    Floats squares{};
    for (std::int64_t i = 0; i < body; i += kLanes) {
      const Floats v = load(in + i);
      squares += v * v;
    }
    float sum = sum_lanes(squares);
    for (std::int64_t i = body; i < width; ++i) sum += load_one(in + i) * load_one(in + i);
    const float inverse = 1.0F / std::sqrt(sum / static_cast<float>(width) + weight.eps);
    for (std::int64_t i = 0; i < body; i += kLanes)
      store(result + i, load(in + i) * inverse * (load(scale + i) + weight.offset));
    for (std::int64_t i = body; i < width; ++i)
      store_one(result + i, load_one(in + i) * inverse * (scale[i] + weight.offset));
  }
}

// With h = g * weight: dx = inverse * h - x * inverse^3 / width * sum(h * x).
template <typename G, typename In, typename Out>
LORA_KERNEL void backward_range(const G* g, const In* x, const NormWeight& weight,
                                const Range& range, bool accumulate, Out* dx) {
  const std::int64_t width = weight.width;
  const std::int64_t body = width / kLanes * kLanes;
  const float* scale = weight.values;
  for (std::int64_t row = range.begin; row < range.end; ++row) {
    const In* in = x + row * width;
    const G* grad = g + row * width;
    Out* result = dx + row * width;
    Floats squares{};
    Floats products{};
    for (std::int64_t i = 0; i < body; i += kLanes) {
      const Floats v = load(in + i);
      squares += v * v;
      products += v * load(grad + i) * (load(scale + i) + weight.offset);
    }
    float square = sum_lanes(squares);
    float product = sum_lanes(products);
    for (std::int64_t i = body; i < width; ++i) {
      const float v = load_one(in + i);
      square += v * v;
      product += v * load_one(grad + i) * (scale[i] + weight.offset);
    }
    const float inverse = 1.0F / std::sqrt(square / static_cast<float>(width) + weight.eps);
    const float share = inverse * inverse * inverse * product / static_cast<float>(width);
    for (std::int64_t i = 0; i < body; i += kLanes) {
      const Floats h = load(grad + i) * (load(scale + i) + weight.offset);
      const Floats own = h * inverse - load(in + i) * share;
      store(result + i, accumulate ? load(result + i) + own : own);
    }
    for (std::int64_t i = body; i < width; ++i) {
      const float h = load_one(grad + i) * (scale[i] + weight.offset);
      const float own = h * inverse - load_one(in + i) * share;
      store_one(result + i, accumulate ? load_one(result + i) + own : own);
    }
  }
}

}  // namespace

template <typename In, typename Out>
void rms_norm(const In* x, const NormWeight& weight, std::int64_t rows, Out* out) {
  at::parallel_for(0, rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    forward_range(x, weight, {begin, end}, out);
  });
}

template <typename G, typename In, typename Out>
void rms_norm_backward(const G* g, const In* x, const NormWeight& weight, std::int64_t rows,
                       bool accumulate, Out* dx) {
  at::parallel_for(0, rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    backward_range(g, x, weight, {begin, end}, accumulate, dx);
  });
}

#define LORA_FORWARD(In, Out) \
  template void rms_norm(const In*, const NormWeight&, std::int64_t, Out*);
#define LORA_BACKWARD(G, In, Out) \
  template void rms_norm_backward(const G*, const In*, const NormWeight&, std::int64_t, bool, Out*);
LORA_FORWARD(float, float)
LORA_FORWARD(float, Bf16)
LORA_FORWARD(Bf16, Bf16)
LORA_FORWARD(Bf16, float)
LORA_BACKWARD(float, float, float)
LORA_BACKWARD(float, float, Bf16)
LORA_BACKWARD(float, Bf16, float)
LORA_BACKWARD(float, Bf16, Bf16)
LORA_BACKWARD(Bf16, float, float)
LORA_BACKWARD(Bf16, float, Bf16)
LORA_BACKWARD(Bf16, Bf16, float)
LORA_BACKWARD(Bf16, Bf16, Bf16)
#undef LORA_FORWARD
#undef LORA_BACKWARD

}  // namespace lora::engine
