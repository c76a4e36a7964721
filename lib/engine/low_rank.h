// Products with the factors of LoRA, which are f32 whatever the activations are stored as.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/workspace.h"

namespace lora::engine {

/// p [rows, rank] = x [rows, width] . factor^T for a factor [rank, width].
void low_rank_product(const at::Tensor& x, const at::Tensor& factor, at::Tensor& p,
                      Workspace& workspace);

/// y [rows, width] += scale * p . factor
void low_rank_add(const at::Tensor& p, const at::Tensor& factor, double scale, at::Tensor& y,
                  Workspace& workspace);

/// gradient [rank, width] += scale * p^T . x
void low_rank_gradient(const at::Tensor& p, const at::Tensor& x, double scale, at::Tensor gradient,
                       Workspace& workspace);

}  // namespace lora::engine
