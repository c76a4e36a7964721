#include "engine/low_rank.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>

#include "engine/gemm.h"
#include "engine/kernels/kernels.h"

namespace lora::engine {
namespace {

// Beyond this rank a general f32 product of the widened activations is faster.
constexpr std::int64_t kThin = 16;

bool is_thin(const at::Tensor& activations, std::int64_t rank) {
  return activations.scalar_type() == at::kBFloat16 && rank <= kThin;
}

const Bf16* bf16(const at::Tensor& tensor) {
  return static_cast<const Bf16*>(tensor.const_data_ptr());
}

at::Tensor widened(const at::Tensor& x, Workspace& workspace) {
  if (x.scalar_type() == at::kFloat) return x;
  at::Tensor wide = workspace.get(Slot::widened, x.sizes());
  wide.copy_(x);
  return wide;
}

// The factors of one layer's B are stored as [width, rank].
at::Tensor dense(const at::Tensor& factor, Workspace& workspace) {
  if (factor.is_contiguous()) return factor;
  at::Tensor copy = workspace.get(Slot::factor, factor.sizes());
  copy.copy_(factor);
  return copy;
}

}  // namespace

void low_rank_product(const at::Tensor& x, const at::Tensor& factor, at::Tensor& p,
                      Workspace& workspace) {
  if (is_thin(x, factor.size(0)))
    low_rank_product({x.size(0), x.size(1), factor.size(0)}, bf16(x),
                     dense(factor, workspace).const_data_ptr<float>(), p.mutable_data_ptr<float>());
  else if (factor.is_contiguous())
    multiply(widened(x, workspace), factor, p, workspace);
  else
    at::mm_out(p, widened(x, workspace), factor.t());
}

void low_rank_add(const at::Tensor& p, const at::Tensor& factor, double scale, at::Tensor& y,
                  Workspace& workspace) {
  if (y.scalar_type() == at::kFloat) {
    y.addmm_(p, factor, 1, scale);
    return;
  }
  const at::Tensor scaled = scale == 1 ? p : p.mul(scale);
  low_rank_add({y.size(0), y.size(1), factor.size(0)}, scaled.const_data_ptr<float>(),
               dense(factor, workspace).const_data_ptr<float>(),
               static_cast<Bf16*>(y.mutable_data_ptr()));
}

void low_rank_gradient(const at::Tensor& p, const at::Tensor& x, double scale, at::Tensor gradient,
                       Workspace& workspace) {
  if (!is_thin(x, p.size(1))) {
    gradient.addmm_(p.t(), widened(x, workspace), 1, scale);
    return;
  }
  at::Tensor sums = workspace.get(Slot::factor_gradient, gradient.sizes());
  sums.zero_();
  low_rank_gradient({x.size(0), x.size(1), p.size(1)}, p.const_data_ptr<float>(), bf16(x),
                    sums.mutable_data_ptr<float>());
  gradient.add_(sums, scale);
}

}  // namespace lora::engine
