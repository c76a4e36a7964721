#include "engine/linear.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>

#include "engine/gemm.h"
#include "engine/kernels/kernels.h"
#include "lora/base/random.h"

namespace lora::engine {
namespace {

std::uint64_t mask_key(const LoraBranch& branch, const StepContext& context) {
  const CounterRandom random(context.seed, branch.stream);
  const auto words = random.block((static_cast<std::uint64_t>(context.step) << 24) ^
                                  static_cast<std::uint64_t>(context.micro_batch));
  return (static_cast<std::uint64_t>(words[1]) << 32) | words[0];
}

bool is_dropping(const LoraBranch& branch, const Pass& pass) {
  return pass.dropout != nullptr && branch.dropout > 0;
}

}  // namespace

Linear::Linear(std::string module_path, Parameter& weight, Parameter* bias)
    : module_path_(std::move(module_path)), weight_(weight), bias_(bias) {}

bool Linear::has_trainable() const {
  if (weight_.is_trainable() || (bias_ != nullptr && bias_->is_trainable())) return true;
  for (const LoraBranch& branch : branches_)
    if (branch.is_trainable()) return true;
  return false;
}

at::Tensor Linear::dropped(const at::Tensor& x, const LoraBranch& branch, const Pass& pass,
                           Workspace& workspace, Slot slot) const {
  if (!is_dropping(branch, pass)) return x;
  at::Tensor out = workspace.get(slot, x.sizes());
  apply_dropout(x.const_data_ptr<float>(), x.numel(), branch.dropout,
                mask_key(branch, *pass.dropout), out.mutable_data_ptr<float>());
  return out;
}

void Linear::forward(const at::Tensor& x, at::Tensor& y, const Pass& pass, Workspace& workspace,
                     BranchProducts* products) const {
  multiply(x, weight_.value(pass.with_adapters), y, workspace);
  if (bias_ != nullptr) y.add_(bias_->value(pass.with_adapters));
  if (!pass.with_adapters) return;
  if (products != nullptr) products->resize(branches_.size());
  for (std::size_t i = 0; i < branches_.size(); ++i) {
    const LoraBranch& branch = branches_[i];
    at::Tensor product;
    if (products != nullptr) {
      ensure((*products)[i], {x.size(0), branch.a.size(0)});
      product = (*products)[i];
    } else {
      product = workspace.get(Slot::low_rank, {x.size(0), branch.a.size(0)});
    }
    multiply(dropped(x, branch, pass, workspace, Slot::dropped), branch.a, product, workspace);
    y.addmm_(product, branch.b.t(), 1, branch.scaling);
    if (branch.bias.defined()) y.add_(branch.bias, branch.scaling);
  }
}

void Linear::backward(const at::Tensor& x, const at::Tensor& g, const BranchProducts& products,
                      const Pass& pass, Workspace& workspace, at::Tensor* dx,
                      bool accumulate) const {
  if (dx != nullptr) multiply_transposed(g, weight_.value(true), *dx, accumulate, workspace);
  if (weight_.is_trainable()) {
    at::Tensor gradient = weight_.gradient;
    gradient.addmm_(g.t(), x);
  }
  if (bias_ != nullptr && bias_->is_trainable()) bias_->gradient.add_(g.sum(0));
  for (std::size_t i = 0; i < branches_.size(); ++i)
    branch_backward(branches_[i], products[i], x, g, pass, workspace, dx);
}

// With u = x a^T and v = scaling * g b: db = scaling * g^T u, da = v^T x, dx += v a.
void Linear::branch_backward(const LoraBranch& branch, const at::Tensor& product,
                             const at::Tensor& x, const at::Tensor& g, const Pass& pass,
                             Workspace& workspace, at::Tensor* dx) const {
  at::Tensor v = workspace.get(Slot::low_rank_gradient, {g.size(0), branch.b.size(1)});
  at::mm_out(v, g, branch.b);
  v.mul_(branch.scaling);
  if (branch.is_trainable()) {
    at::Tensor b_gradient = branch.b_gradient;
    b_gradient.addmm_(g.t(), product, 1, branch.scaling);
    at::Tensor a_gradient = branch.a_gradient;
    a_gradient.addmm_(v.t(), dropped(x, branch, pass, workspace, Slot::dropped));
    if (branch.bias_gradient.defined()) branch.bias_gradient.add_(g.sum(0), branch.scaling);
  }
  if (dx == nullptr) return;
  if (!is_dropping(branch, pass)) {
    dx->addmm_(v, branch.a);
    return;
  }
  at::Tensor part = workspace.get(Slot::dropped_gradient, x.sizes());
  at::mm_out(part, v, branch.a);
  dx->add_(dropped(part, branch, pass, workspace, Slot::dropped));
}

}  // namespace lora::engine
