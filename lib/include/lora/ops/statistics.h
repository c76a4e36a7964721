// Statistics of tensors and of applied updates, without ever materialising an update.
//
// The update of a module is dW = s * B . A with B [out, r] and A [r, in]. Everything here works on
// r x r matrices: ||dW||_F^2 = s^2 tr((B^T B)(A A^T)), the sum of all elements is
// s * (1^T B)(A 1), and the singular values of dW are those of s * R_B . R_A^T, where B = Q_B R_B
// and A^T = Q_A R_A are QR factorisations. All arithmetic is f64.
#pragma once

#include <cstdint>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/tensor.h"

namespace lora {

/// Of the finite values; `std` is the sample deviation (n - 1), as torch.std.
struct TensorStatistics {
  double mean = 0, std = 0, norm = 0, min = 0, max = 0;
  std::int64_t count = 0, nan_count = 0, inf_count = 0;
  std::int64_t first_non_finite = -1;  ///< flat index, -1 when all values are finite
  bool is_all_zero = true;
};

/// Throws Error(unsupported) for dtypes that are not floats.
TensorStatistics statistics_of(const Tensor& tensor);

/// Of dW; all zero when a factor holds NaN or Inf.
struct UpdateStatistics {
  double mean = 0, std = 0, norm = 0;
  double effective_rank = 0;  ///< exp(entropy of singular values / their sum); Roy & Vetterli 2007
  double stable_rank = 0;     ///< ||dW||_F^2 / ||dW||_2^2
  std::vector<double> singular_values;  ///< descending, r of them
};

UpdateStatistics update_statistics(const LoraModule& module);

/// How two updates of the same module differ; ranks, scalings and gauges may differ.
struct UpdateDistance {
  double norm_a = 0, norm_b = 0;
  double difference = 0;  ///< ||dW_a - dW_b||_F, from the QR of the stacked factors
  double relative = 0;    ///< difference / norm_a; 0 when both are zero, infinite when only a is
  double cosine = 0;      ///< <dW_a, dW_b> / (norm_a norm_b); 1 when both are zero, 0 when one is
  double largest_angle = 0;  ///< degrees between the output spaces of the two updates (principal
                             ///< angle; 0 when either is zero)
};

UpdateDistance update_distance(const LoraModule& a, const LoraModule& b);

}  // namespace lora
