#include "engine/train/optimizer.h"

#include <ATen/Parallel.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace lora::engine {
namespace {

// Partial sums over fixed pieces, so that neither the result nor a resumed run depends on how many
// threads took part.
double sum_of_squares(const float* values, std::int64_t count) {
  constexpr std::int64_t kPiece = 1 << 14;
  const std::int64_t pieces = (count + kPiece - 1) / kPiece;
  std::vector<double> partial(static_cast<std::size_t>(pieces));
  at::parallel_for(0, pieces, 4, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t piece = first; piece < last; ++piece) {
      const std::int64_t end = std::min(count, (piece + 1) * kPiece);
      double sum = 0;
      for (std::int64_t i = piece * kPiece; i < end; ++i)
        sum += static_cast<double>(values[i]) * static_cast<double>(values[i]);
      partial[static_cast<std::size_t>(piece)] = sum;
    }
  });
  double total = 0;
  for (const double sum : partial) total += sum;
  return total;
}

}  // namespace

AdamW::AdamW(const at::Tensor& like, AdamWSettings settings)
    : settings_(settings),
      first_moment_(at::zeros_like(like)),
      second_moment_(at::zeros_like(like)),
      step_(at::tensor(0.0F, like.options())) {}

void AdamW::update(at::Tensor& values, at::Tensor& gradients, double rate, std::int64_t step) {
  step_.fill_(static_cast<double>(step));
  at::_fused_adamw_({values}, {gradients}, {first_moment_}, {second_moment_}, {}, {step_}, rate,
                    settings_.beta1, settings_.beta2, settings_.weight_decay, settings_.eps,
                    /*amsgrad=*/false, /*maximize=*/false);
}

double global_norm(const at::Tensor& gradients) {
  if (!gradients.is_cpu())
    return at::linalg_vector_norm(gradients, 2, std::nullopt, false, at::kDouble).item<double>();
  return std::sqrt(sum_of_squares(gradients.const_data_ptr<float>(), gradients.numel()));
}

double clip_by_global_norm(at::Tensor& gradients, double max_norm) {
  const double norm = global_norm(gradients);
  if (max_norm > 0 && std::isfinite(norm)) {
    const double factor = max_norm / (norm + 1e-6);
    if (factor < 1) gradients.mul_(factor);
  }
  return norm;
}

}  // namespace lora::engine
