// Activations of any leading shape as the rows of a matrix, for products written by hand.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace lora::engine {

/// x [..., width] as a dense [rows, width].
inline at::Tensor rows_of(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}).contiguous(); }

/// rows [rows, width] with the leading shape of `input`.
inline at::Tensor shaped_like(const at::Tensor& rows, const at::Tensor& input) {
  std::vector<std::int64_t> sizes = input.sizes().vec();
  sizes.back() = rows.size(1);
  return rows.view(sizes);
}

}  // namespace lora::engine
