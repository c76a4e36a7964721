// A frozen linear layer with one plain LoRA branch as a single node of the autograd graph.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/lora_site.h"

namespace lora::engine {

/// x [..., in] . weight^T + scaling * (dropped x . a^T) . b^T, for a frozen weight [out, in] of any
/// floating type and strides. Keeps x and x . a^T from forward to backward, nothing of the size of
/// the output and no widened weight.
at::Tensor lora_linear(const at::Tensor& x, const at::Tensor& weight, const LoraBranch& branch,
                       const Pass& pass);

}  // namespace lora::engine
