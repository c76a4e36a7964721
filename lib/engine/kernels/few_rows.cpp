#include <ATen/Parallel.h>

#include <algorithm>

#include "engine/kernels/kernels.h"
#include "engine/kernels/vector.h"

namespace lora::engine {
namespace {

template <typename Weight>
LORA_KERNEL void products(const float* x, std::int64_t rows, const Weight* weight,
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
        s0 += load(w + k) * load(v + k);
        s1 += load(w + k + kLanes) * load(v + k + kLanes);
        s2 += load(w + k + 2 * kLanes) * load(v + k + 2 * kLanes);
        s3 += load(w + k + 3 * kLanes) * load(v + k + 3 * kLanes);
      }
      float sum = sum_lanes((s0 + s1) + (s2 + s3));
      for (std::int64_t k = body; k < inputs; ++k) sum += load_one(w + k) * v[k];
      out[row * outputs + n] = sum;
    }
  }
}

std::int64_t grain_of(std::int64_t inputs) {
  return std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, inputs));
}

}  // namespace

template <typename Weight>
void few_row_product(const float* x, std::int64_t rows, const Weight* weight, std::int64_t outputs,
                     std::int64_t inputs, float* out) {
  at::parallel_for(0, outputs, grain_of(inputs), [=](std::int64_t begin, std::int64_t end) {
    products(x, rows, weight, begin, end, outputs, inputs, out);
  });
}

template void few_row_product(const float*, std::int64_t, const float*, std::int64_t, std::int64_t,
                              float*);
template void few_row_product(const float*, std::int64_t, const Bf16*, std::int64_t, std::int64_t,
                              float*);

}  // namespace lora::engine
