// Products with a parameter of the base, however it is kept.
#pragma once

#include "engine/gemm.h"
#include "engine/parameter.h"

namespace lora::engine {

/// y = x . weight^T
inline void multiply(const at::Tensor& x, const Parameter& weight, bool with_adapters,
                     at::Tensor& y, Workspace& workspace) {
  if (const QuantisedMatrix* quantised = weight.quantised_value(with_adapters))
    multiply(x, *quantised, y, workspace);
  else
    multiply(x, weight.value(with_adapters), y, workspace);
}

/// dx = g . weight, or += with `accumulate`; adapters are on.
inline void multiply_transposed(const at::Tensor& g, const Parameter& weight, at::Tensor& dx,
                                bool accumulate, Workspace& workspace) {
  if (const QuantisedMatrix* quantised = weight.quantised_value(true))
    multiply_transposed(g, *quantised, dx, accumulate, workspace);
  else
    multiply_transposed(g, weight.value(true), dx, accumulate, workspace);
}

}  // namespace lora::engine
