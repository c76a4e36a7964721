// AdamW with decoupled weight decay over one flat buffer, equal to torch.optim.AdamW, and clipping
// by global norm, equal to torch.nn.utils.clip_grad_norm_.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lora::engine {

struct AdamWSettings {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
};

class AdamW {
 public:
  /// `like` is the f32 parameter buffer [n]; the moments start at zero.
  AdamW(const at::Tensor& like, AdamWSettings settings);

  /// One update of `values` in place; `step` counts from 1.
  void update(at::Tensor& values, at::Tensor& gradients, double rate, std::int64_t step);

  at::Tensor& first_moment() { return first_moment_; }    ///< f32 [n], exp_avg
  at::Tensor& second_moment() { return second_moment_; }  ///< f32 [n], exp_avg_sq

 private:
  AdamWSettings settings_;
  at::Tensor first_moment_;
  at::Tensor second_moment_;
  at::Tensor step_;
};

/// Euclidean norm of a f32 buffer, summed in double in an order that does not depend on threads.
double global_norm(const at::Tensor& gradients);

/// Scales `gradients` by max_norm / (norm + 1e-6) where that is below 1; max_norm 0 leaves them.
/// Returns the norm before clipping.
double clip_by_global_norm(at::Tensor& gradients, double max_norm);

}  // namespace lora::engine
