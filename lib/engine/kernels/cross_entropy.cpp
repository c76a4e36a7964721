#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "engine/kernels/kernels.h"
#include "engine/kernels/vector.h"

namespace lora::engine {
namespace {

// Blocks keep the f32 partial sums short; the total is f64.
constexpr std::int64_t kBlock = 512;

LORA_KERNEL double sum_of(const float* row, std::int64_t count) {
  double total = 0;
  for (std::int64_t start = 0; start < count; start += kBlock) {
    float sum = 0;
    const std::int64_t stop = std::min(start + kBlock, count);
    for (std::int64_t i = start; i < stop; ++i) sum += row[i];
    total += static_cast<double>(sum);
  }
  return total;
}

// With s the smoothing and L = logsumexp(x): L - (1 - s) x[label] - s mean(x) + z L^2, whose
// gradient is (1 + 2 z L) softmax(x) - (1 - s) [label] - s / classes.
LORA_KERNEL double loss_row(float* row, std::int64_t classes, std::int64_t label, float scale,
                            const LossSettings& settings) {
  const double smoothing = settings.label_smoothing;
  const std::int64_t body = classes / kLanes * kLanes;
  const float target = row[label];
  Floats tops = broadcast(row[0]);
  for (std::int64_t i = 0; i < body; i += kLanes) tops = max_of(tops, load(row + i));
  float top = max_lane(tops);
  for (std::int64_t i = body; i < classes; ++i) top = std::max(top, row[i]);

  const double mean = smoothing != 0 ? sum_of(row, classes) / static_cast<double>(classes) : 0;
  double total = 0;
  for (std::int64_t start = 0; start < body; start += kBlock) {
    Floats sums{};
    const std::int64_t stop = std::min(start + kBlock, body);
    for (std::int64_t i = start; i < stop; i += kLanes) {
      const Floats e = exp_of(load(row + i) - top);
      sums += e;
      if (scale != 0) store(row + i, e);
    }
    total += sum_lanes(sums);
  }
  for (std::int64_t i = body; i < classes; ++i) {
    const float e = exp_of(row[i] - top);
    total += e;
    if (scale != 0) row[i] = e;
  }
  const double log_sum = std::log(total) + static_cast<double>(top);
  if (scale != 0) {
    const float factor = static_cast<float>(scale * (1 + 2 * settings.z_loss * log_sum) / total);
    for (std::int64_t i = 0; i < body; i += kLanes) store(row + i, load(row + i) * factor);
    for (std::int64_t i = body; i < classes; ++i) row[i] *= factor;
    if (smoothing != 0) {
      const auto share = static_cast<float>(scale * smoothing / static_cast<double>(classes));
      for (std::int64_t i = 0; i < classes; ++i) row[i] -= share;
    }
    row[label] -= static_cast<float>(scale * (1 - smoothing));
  }
  return log_sum - (1 - smoothing) * static_cast<double>(target) - smoothing * mean +
         settings.z_loss * log_sum * log_sum;
}

}  // namespace

void cross_entropy(float* logits, const std::int64_t* labels, std::int64_t rows,
                   std::int64_t classes, float gradient_scale, double* losses,
                   const LossSettings& settings) {
  at::parallel_for(0, rows, 1, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      losses[row] =
          loss_row(logits + row * classes, classes, labels[row], gradient_scale, settings);
  });
}

}  // namespace lora::engine
