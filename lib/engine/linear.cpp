#include "engine/linear.h"

#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>

#include "engine/gemm.h"
#include "engine/kernels/kernels.h"
#include "engine/low_rank.h"
#include "engine/weight_product.h"

namespace lora::engine {
Linear::Linear(std::string module_path, Parameter& weight, Parameter* bias)
    : site_{std::move(module_path), LayerKind::linear, &weight, bias, {}} {}

at::Tensor Linear::dropped(const at::Tensor& x, const LoraBranch& branch, const Pass& pass,
                           Workspace& workspace, Slot slot) const {
  if (!is_dropping(branch, pass)) return x;
  at::Tensor out = workspace.get(slot, x.sizes());
  if (x.scalar_type() != at::kFloat) out.copy_(x);
  const at::Tensor& in = x.scalar_type() == at::kFloat ? x : out;
  apply_dropout(in.const_data_ptr<float>(), x.numel(), branch.dropout,
                dropout_key(branch.stream, *pass.dropout), out.mutable_data_ptr<float>());
  return out;
}

void Linear::forward(const at::Tensor& x, at::Tensor& y, const Pass& pass, Workspace& workspace,
                     BranchProducts* products) const {
  multiply(x, *site_.weight, pass.with_adapters, y, workspace);
  if (site_.bias != nullptr) y.add_(site_.bias->value(pass.with_adapters));
  if (!pass.with_adapters) return;
  if (products != nullptr) products->resize(site_.branches.size());
  for (std::size_t i = 0; i < site_.branches.size(); ++i) {
    const LoraBranch& branch = site_.branches[i];
    at::Tensor product;
    if (products != nullptr) {
      ensure((*products)[i], {x.size(0), branch.a.size(0)});
      product = (*products)[i];
    } else {
      product = workspace.get(Slot::low_rank, {x.size(0), branch.a.size(0)});
    }
    low_rank_product(dropped(x, branch, pass, workspace, Slot::dropped), branch.a, product,
                     workspace);
    low_rank_add(product, branch.b.t(), branch.scaling, y, workspace);
    if (branch.bias.defined()) y.add_(branch.bias, branch.scaling);
  }
}

void Linear::backward(const at::Tensor& x, const at::Tensor& g, const BranchProducts& products,
                      const Pass& pass, Workspace& workspace, at::Tensor* dx,
                      bool accumulate) const {
  if (dx != nullptr) multiply_transposed(g, *site_.weight, *dx, accumulate, workspace);
  if (site_.weight->is_trainable()) {
    at::Tensor gradient = site_.weight->gradient;
    gradient.addmm_(g.to(at::kFloat).t(), x.to(at::kFloat));
  }
  if (site_.bias != nullptr && site_.bias->is_trainable())
    site_.bias->gradient.add_(g.sum(0, false, at::kFloat));
  for (std::size_t i = 0; i < site_.branches.size(); ++i)
    branch_backward(site_.branches[i], products[i], x, g, pass, workspace, dx);
}

// With u = x a^T and v = scaling * g b: db = scaling * g^T u, da = v^T x, dx += v a.
void Linear::branch_backward(const LoraBranch& branch, const at::Tensor& product,
                             const at::Tensor& x, const at::Tensor& g, const Pass& pass,
                             Workspace& workspace, at::Tensor* dx) const {
  at::Tensor v = workspace.get(Slot::low_rank_gradient, {g.size(0), branch.b.size(1)});
  low_rank_product(g, branch.b.t(), v, workspace);
  v.mul_(branch.scaling);
  if (branch.is_trainable()) {
    low_rank_gradient(product, g, branch.scaling, branch.b_gradient.t(), workspace);
    low_rank_gradient(v, dropped(x, branch, pass, workspace, Slot::dropped), 1, branch.a_gradient,
                      workspace);
    if (branch.bias_gradient.defined())
      branch.bias_gradient.add_(g.sum(0, false, at::kFloat), branch.scaling);
  }
  if (dx == nullptr) return;
  if (!is_dropping(branch, pass)) {
    low_rank_add(v, branch.a, 1, *dx, workspace);
    return;
  }
  at::Tensor part = workspace.get(Slot::dropped_gradient, x.sizes());
  at::mm_out(part, v, branch.a);
  dx->add_(dropped(part, branch, pass, workspace, Slot::dropped));
}

}  // namespace lora::engine
