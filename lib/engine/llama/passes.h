// The kernels on tensors: the element types choose among them.
//
// Activations are f32, or bf16 where products run in bf16; sums along the residual are f32 always.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/kernels/kernels.h"

namespace lora::engine {

/// x and out [..., width], width that of the weight's values.
void norm_forward(const at::Tensor& x, const NormWeight& weight, at::Tensor& out);
void norm_backward(const at::Tensor& g, const at::Tensor& x, const NormWeight& weight,
                   bool accumulate, at::Tensor& dx);
/// gradient += scale * sum over rows of g * x / rms(x).
void add_norm_weight_gradient(const at::Tensor& g, const at::Tensor& x, double eps, double scale,
                              const at::Tensor& gradient);

/// gate and up [rows, width] may be slices of wider rows.
void gate_forward(Gate kind, const at::Tensor& gate, const at::Tensor& up, at::Tensor& out);
void gate_backward(Gate kind, const at::Tensor& g, at::Tensor& gate, at::Tensor& up);

/// rows [batch * time, heads * dim] may be a slice of wider rows.
void rows_to_heads(const at::Tensor& rows, HeadShape shape, const Rotation& rotation,
                   at::Tensor& heads);
void heads_to_rows(const at::Tensor& heads, HeadShape shape, const Rotation& rotation,
                   at::Tensor& rows);

/// out = y + scale * x, y and out f32; out may be y.
void add_scaled(const at::Tensor& y, const at::Tensor& x, double scale, at::Tensor& out);
/// out = scale * x in out's type.
void scale_into(const at::Tensor& x, double scale, at::Tensor& out);

}  // namespace lora::engine
