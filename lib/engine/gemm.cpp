#include "engine/gemm.h"

#include <ATen/ops/mm.h>

#include <algorithm>

#include "engine/kernels/kernels.h"
#include "engine/product.h"

namespace lora::engine {
namespace {

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

void few_rows(const at::Tensor& x, const at::Tensor& weight, at::Tensor& y) {
  const auto run = [&](const auto* values) {
    few_row_product(x.const_data_ptr<float>(), x.size(0), values, weight.size(0), weight.size(1),
                    y.mutable_data_ptr<float>());
  };
  if (weight.scalar_type() == at::kBFloat16)
    run(static_cast<const Bf16*>(weight.const_data_ptr()));
  else
    run(weight.const_data_ptr<float>());
}

}  // namespace

bool is_bf16_product(const at::Tensor& weight, std::int64_t rows) {
  return weight.defined() && weight.scalar_type() == at::kBFloat16 && rows > kFewRows &&
         has_bf16_instructions();
}

void multiply_widened(const at::Tensor& x, const at::Tensor& weight, at::Tensor& y,
                      Workspace& workspace) {
  for_widened_blocks(weight, workspace,
                     [&](std::int64_t begin, std::int64_t count, const at::Tensor& wide) {
                       at::Tensor part = y.narrow(1, begin, count);
                       at::mm_out(part, x, wide.t());
                     });
}

void multiply_transposed_widened(const at::Tensor& g, const at::Tensor& weight, at::Tensor& dx,
                                 bool accumulate, Workspace& workspace) {
  for_widened_blocks(weight, workspace,
                     [&](std::int64_t begin, std::int64_t count, const at::Tensor& wide) {
                       add_product(g.narrow(1, begin, count), wide, accumulate || begin > 0, dx);
                     });
}

void multiply(const at::Tensor& x, const at::Tensor& weight, at::Tensor& y, Workspace& workspace) {
  const bool is_bf16 = is_bf16_product(weight, x.size(0));
  in_type(is_bf16 ? at::kBFloat16 : at::kFloat, x, y, false, workspace,
          [&](const at::Tensor& input, at::Tensor& output, bool /*accumulate*/) {
            if (input.size(0) <= kFewRows)
              few_rows(input, weight, output);
            else if (is_bf16 || weight.scalar_type() == at::kFloat)
              at::mm_out(output, input, weight.t());
            else
              multiply_widened(input, weight, output, workspace);
          });
}

void multiply_transposed(const at::Tensor& g, const at::Tensor& weight, at::Tensor& dx,
                         bool accumulate, Workspace& workspace) {
  const bool is_bf16 = is_bf16_product(weight, g.size(0));
  in_type(is_bf16 ? at::kBFloat16 : at::kFloat, g, dx, accumulate, workspace,
          [&](const at::Tensor& input, at::Tensor& output, bool adds) {
            if (is_bf16 || weight.scalar_type() == at::kFloat)
              add_product(input, weight, adds, output);
            else
              multiply_transposed_widened(input, weight, output, adds, workspace);
          });
}

}  // namespace lora::engine
