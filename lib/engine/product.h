// What products with a weight share, however the weight is kept.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include <cstdint>

#include "engine/workspace.h"

namespace lora::engine {

/// Up to this many rows, as in generation, a product reads the weight once and needs no blocks.
inline constexpr std::int64_t kFewRows = 4;

/// Calls body(input, output, accumulate) with both matrices in `type`: x and y themselves or
/// copies, of which the output goes back to y.
template <typename Body>
void in_type(at::ScalarType type, const at::Tensor& x, at::Tensor& y, bool accumulate,
             Workspace& workspace, Body&& body) {
  at::Tensor input = x;
  if (x.scalar_type() != type) {
    input = workspace.get(Slot::product_input, x.sizes(), type);
    input.copy_(x);
  }
  if (y.scalar_type() == type) {
    body(input, y, accumulate);
    return;
  }
  at::Tensor output = workspace.get(Slot::product_output, y.sizes(), type);
  body(input, output, false);
  if (accumulate)
    y.add_(output);
  else
    y.copy_(output);
}

/// out = a . b, or += with `accumulate`.
inline void add_product(const at::Tensor& a, const at::Tensor& b, bool accumulate,
                        at::Tensor& out) {
  if (accumulate)
    out.addmm_(a, b);
  else
    at::mm_out(out, a, b);
}

}  // namespace lora::engine
