#include <ATen/Parallel.h>

#include <algorithm>

#include "engine/kernels/kernels.h"
#include "engine/kernels/vector.h"

namespace lora::engine {
namespace {

LORA_INLINE Floats load_weight(const float* p) { return load(p); }
LORA_INLINE Floats load_weight(const std::uint16_t* p) { return load_bf16(p); }
LORA_INLINE float widen_one(float x) { return x; }
LORA_INLINE float widen_one(std::uint16_t x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <typename Weight>
LORA_INLINE void products(const float* x, std::int64_t rows, const Weight* weight,
                          std::int64_t begin, std::int64_t end, std::int64_t outputs,
                          std::int64_t inputs, float* out) {
  // Four independent sums hide the latency of the additions.
  const std::int64_t body = inputs / (4 * kLanes) * (4 * kLanes);
  for (std::int64_t n = begin; n < end; ++n) {
    const Weight* w = weight + n * inputs;
    for (std::int64_t row = 0; row < rows; ++row) {
      const float* v = x + row * inputs;
      Floats s0{}, s1{}, s2{}, s3{};
      for (std::int64_t k = 0; k < body; k += 4 * kLanes) {
        s0 += load_weight(w + k) * load(v + k);
        s1 += load_weight(w + k + kLanes) * load(v + k + kLanes);
        s2 += load_weight(w + k + 2 * kLanes) * load(v + k + 2 * kLanes);
        s3 += load_weight(w + k + 3 * kLanes) * load(v + k + 3 * kLanes);
      }
      float sum = sum_lanes((s0 + s1) + (s2 + s3));
      for (std::int64_t k = body; k < inputs; ++k) sum += widen_one(w[k]) * v[k];
      out[row * outputs + n] = sum;
    }
  }
}

LORA_KERNEL void products_f32(const float* x, std::int64_t rows, const float* weight,
                              std::int64_t begin, std::int64_t end, std::int64_t outputs,
                              std::int64_t inputs, float* out) {
  products(x, rows, weight, begin, end, outputs, inputs, out);
}
LORA_KERNEL void products_bf16(const float* x, std::int64_t rows, const std::uint16_t* weight,
                               std::int64_t begin, std::int64_t end, std::int64_t outputs,
                               std::int64_t inputs, float* out) {
  products(x, rows, weight, begin, end, outputs, inputs, out);
}

std::int64_t grain_of(std::int64_t inputs) {
  return std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, inputs));
}

}  // namespace

void few_row_product(const float* x, std::int64_t rows, const float* weight, std::int64_t outputs,
                     std::int64_t inputs, float* out) {
  at::parallel_for(0, outputs, grain_of(inputs), [=](std::int64_t begin, std::int64_t end) {
    products_f32(x, rows, weight, begin, end, outputs, inputs, out);
  });
}

void few_row_product(const float* x, std::int64_t rows, const std::uint16_t* weight,
                     std::int64_t outputs, std::int64_t inputs, float* out) {
  at::parallel_for(0, outputs, grain_of(inputs), [=](std::int64_t begin, std::int64_t end) {
    products_bf16(x, rows, weight, begin, end, outputs, inputs, out);
  });
}

}  // namespace lora::engine
