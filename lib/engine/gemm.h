// Products of activations with a weight [out, in] stored in f32 or bf16.
//
// With a bf16 weight: processors with bf16 instructions multiply in bf16 (activations rounded, sums
// in f32, products rounded to bf16); others widen the weight block by block and multiply in f32,
// which is more exact and many times faster there than LibTorch's own bf16 product. Activations and
// results are f32 or bf16; what differs from the product's own type is converted.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/workspace.h"

namespace lora::engine {

/// Whether this weight is multiplied in bf16, so that activations may as well be stored in it. A
/// few rows, as in generation, are better stored as f32.
bool is_bf16_product(const at::Tensor& weight, std::int64_t rows);

/// The products of f32 matrices with a bf16 weight that is widened block by block.
void multiply_widened(const at::Tensor& x, const at::Tensor& weight, at::Tensor& y,
                      Workspace& workspace);
void multiply_transposed_widened(const at::Tensor& g, const at::Tensor& weight, at::Tensor& dx,
                                 bool accumulate, Workspace& workspace);

/// y [rows, out] = x [rows, in] . weight^T
void multiply(const at::Tensor& x, const at::Tensor& weight, at::Tensor& y, Workspace& workspace);

/// dx [rows, in] = g [rows, out] . weight, or += with `accumulate`.
void multiply_transposed(const at::Tensor& g, const at::Tensor& weight, at::Tensor& dx,
                         bool accumulate, Workspace& workspace);

}  // namespace lora::engine
