#include "engine/gemm.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include <algorithm>

#include "engine/kernels/kernels.h"

namespace lora::engine {
namespace {

constexpr std::int64_t kFewRows = 4;

bool has_bf16_instructions() {
#if defined(__x86_64__) && defined(__GNUC__)
  static const bool supported = __builtin_cpu_supports("avx512bf16") != 0;
  return supported;
#else
  return false;
#endif
}

// About 4 MB of widened weight at a time: it stays in the cache until the product has read it.
std::int64_t block_rows(const at::Tensor& weight) {
  return std::clamp<std::int64_t>(
      (std::int64_t{1} << 20) / std::max<std::int64_t>(1, weight.size(1)), 64,
      std::max<std::int64_t>(64, weight.size(0)));
}

template <typename Body>
void for_widened_blocks(const at::Tensor& weight, Workspace& workspace, Body&& body) {
  const std::int64_t rows = weight.size(0);
  const std::int64_t step = block_rows(weight);
  for (std::int64_t begin = 0; begin < rows; begin += step) {
    const std::int64_t count = std::min(step, rows - begin);
    at::Tensor wide = workspace.get(Slot::wide_weight, {count, weight.size(1)});
    wide.copy_(weight.narrow(0, begin, count));
    body(begin, count, wide);
  }
}

}  // namespace

void multiply(const at::Tensor& x, const at::Tensor& weight, at::Tensor& y, Workspace& workspace) {
  const bool is_bf16 = weight.scalar_type() == at::kBFloat16;
  if (x.size(0) <= kFewRows) {
    if (is_bf16)
      few_row_product(x.const_data_ptr<float>(), x.size(0),
                      static_cast<const Bf16*>(weight.const_data_ptr()), weight.size(0),
                      weight.size(1), y.mutable_data_ptr<float>());
    else
      few_row_product(x.const_data_ptr<float>(), x.size(0), weight.const_data_ptr<float>(),
                      weight.size(0), weight.size(1), y.mutable_data_ptr<float>());
  } else if (!is_bf16) {
    at::mm_out(y, x, weight.t());
  } else if (has_bf16_instructions()) {
    at::Tensor rounded = workspace.get(Slot::rounded_input, x.sizes(), at::kBFloat16);
    rounded.copy_(x);
    at::Tensor product = workspace.get(Slot::rounded_product, y.sizes(), at::kBFloat16);
    at::mm_out(product, rounded, weight.t());
    y.copy_(product);
  } else {
    for_widened_blocks(weight, workspace,
                       [&](std::int64_t begin, std::int64_t count, const at::Tensor& wide) {
                         at::Tensor part = y.narrow(1, begin, count);
                         at::mm_out(part, x, wide.t());
                       });
  }
}

void multiply_transposed(const at::Tensor& g, const at::Tensor& weight, at::Tensor& dx,
                         bool accumulate, Workspace& workspace) {
  if (weight.scalar_type() != at::kBFloat16) {
    if (accumulate)
      dx.addmm_(g, weight);
    else
      at::mm_out(dx, g, weight);
  } else if (has_bf16_instructions()) {
    at::Tensor rounded = workspace.get(Slot::rounded_input, g.sizes(), at::kBFloat16);
    rounded.copy_(g);
    at::Tensor product = workspace.get(Slot::rounded_product, dx.sizes(), at::kBFloat16);
    at::mm_out(product, rounded, weight);
    if (accumulate)
      dx.add_(product);
    else
      dx.copy_(product);
  } else {
    for_widened_blocks(weight, workspace,
                       [&](std::int64_t begin, std::int64_t count, const at::Tensor& wide) {
                         const at::Tensor part = g.narrow(1, begin, count);
                         if (accumulate || begin > 0)
                           dx.addmm_(part, wide);
                         else
                           at::mm_out(dx, part, wide);
                       });
  }
}

}  // namespace lora::engine
