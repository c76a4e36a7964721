#include <ATen/Parallel.h>

#include <cmath>

#include "engine/kernels/kernels.h"
#include "engine/kernels/vector.h"

namespace lora::engine {
namespace {

constexpr std::int64_t kGrain = 16;

LORA_KERNEL void forward_rows(const float* x, const float* weight, float eps, std::int64_t begin,
                              std::int64_t end, std::int64_t width, float* out) {
  const std::int64_t body = width / kLanes * kLanes;
  for (std::int64_t row = begin; row < end; ++row) {
    const float* in = x + row * width;
    float* result = out + row * width;
    Floats squares{};
    for (std::int64_t i = 0; i < body; i += kLanes) {
      const Floats v = load(in + i);
      squares += v * v;
    }
    float sum = sum_lanes(squares);
    for (std::int64_t i = body; i < width; ++i) sum += in[i] * in[i];
    const float inverse = 1.0F / std::sqrt(sum / static_cast<float>(width) + eps);
    for (std::int64_t i = 0; i < body; i += kLanes)
      store(result + i, load(in + i) * inverse * load(weight + i));
    for (std::int64_t i = body; i < width; ++i) result[i] = in[i] * inverse * weight[i];
  }
}

// With h = g * weight: dx = inverse * h - x * inverse^3 / width * sum(h * x).
LORA_KERNEL void backward_rows(const float* g, const float* x, const float* weight, float eps,
                               std::int64_t begin, std::int64_t end, std::int64_t width,
                               float* dx) {
  const std::int64_t body = width / kLanes * kLanes;
  for (std::int64_t row = begin; row < end; ++row) {
    const float* in = x + row * width;
    const float* grad = g + row * width;
    float* result = dx + row * width;
    Floats squares{};
    Floats products{};
    for (std::int64_t i = 0; i < body; i += kLanes) {
      const Floats v = load(in + i);
      squares += v * v;
      products += v * load(grad + i) * load(weight + i);
    }
    float square = sum_lanes(squares);
    float product = sum_lanes(products);
    for (std::int64_t i = body; i < width; ++i) {
      square += in[i] * in[i];
      product += in[i] * grad[i] * weight[i];
    }
    const float inverse = 1.0F / std::sqrt(square / static_cast<float>(width) + eps);
    const float share = inverse * inverse * inverse * product / static_cast<float>(width);
    for (std::int64_t i = 0; i < body; i += kLanes)
      store(result + i,
            load(result + i) + load(grad + i) * load(weight + i) * inverse - load(in + i) * share);
    for (std::int64_t i = body; i < width; ++i)
      result[i] += grad[i] * weight[i] * inverse - in[i] * share;
  }
}

}  // namespace

void rms_norm(const float* x, const float* weight, double eps, std::int64_t rows,
              std::int64_t width, float* out) {
  at::parallel_for(0, rows, kGrain, [=](std::int64_t begin, std::int64_t end) {
    forward_rows(x, weight, static_cast<float>(eps), begin, end, width, out);
  });
}

void rms_norm_backward(const float* g, const float* x, const float* weight, double eps,
                       std::int64_t rows, std::int64_t width, float* dx) {
  at::parallel_for(0, rows, kGrain, [=](std::int64_t begin, std::int64_t end) {
    backward_rows(g, x, weight, static_cast<float>(eps), begin, end, width, dx);
  });
}

}  // namespace lora::engine
