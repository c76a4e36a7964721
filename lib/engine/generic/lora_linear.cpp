#include "engine/generic/lora_linear.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "engine/generic/rows.h"
#include "engine/kernels/kernels.h"

namespace lora::engine {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor dropped(const at::Tensor& x, double rate, std::int64_t key) {
  if (rate == 0) return x;
  at::Tensor out = at::empty_like(x);
  apply_dropout(x.const_data_ptr<float>(), x.numel(), rate, static_cast<std::uint64_t>(key),
                out.mutable_data_ptr<float>());
  return out;
}

// With u = x a^T and v = scaling * g b: db = scaling * g^T u, da = v^T x, dx = g W + v a.
struct LoraLinear : torch::autograd::Function<LoraLinear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& a,
                            const at::Tensor& b, const at::Tensor& weight, double scaling,
                            double rate, std::int64_t key) {
    const at::Tensor rows = rows_of(x);
    const at::Tensor u = at::mm(dropped(rows, rate, key), a.t());
    at::Tensor y = at::mm(rows, weight.to(at::kFloat).t());
    y.addmm_(u, b.t(), 1, scaling);
    context->save_for_backward({x, u, a, b, weight});
    context->saved_data["scaling"] = scaling;
    context->saved_data["rate"] = rate;
    context->saved_data["key"] = key;
    return shaped_like(y, x);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &u = saved[1], &a = saved[2], &b = saved[3], &weight = saved[4];
    const double scaling = context->saved_data["scaling"].toDouble();
    const double rate = context->saved_data["rate"].toDouble();
    const std::int64_t key = context->saved_data["key"].toInt();
    const at::Tensor rows = rows_of(saved[0]);
    const at::Tensor g = rows_of(gradients[0]);
    const at::Tensor v = at::mm(g, b).mul_(scaling);
    variable_list result(7);
    if (context->needs_input_grad(1)) result[1] = at::mm(v.t(), dropped(rows, rate, key));
    if (context->needs_input_grad(2)) result[2] = at::mm(g.t(), u).mul_(scaling);
    if (context->needs_input_grad(0)) {
      at::Tensor dx = at::mm(g, weight.to(at::kFloat));
      if (rate == 0)
        dx.addmm_(v, a);
      else
        dx.add_(dropped(at::mm(v, a), rate, key));
      result[0] = shaped_like(dx, saved[0]);
    }
    return result;
  }
};

}  // namespace

at::Tensor lora_linear(const at::Tensor& x, const at::Tensor& weight, const LoraBranch& branch,
                       const Pass& pass) {
  const bool drops = is_dropping(branch, pass);
  const std::uint64_t key = drops ? dropout_key(branch.stream, *pass.dropout) : 0;
  return LoraLinear::apply(x, branch.a, branch.b, weight, branch.scaling,
                           drops ? branch.dropout : 0.0, static_cast<std::int64_t>(key));
}

}  // namespace lora::engine
