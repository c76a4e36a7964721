#include "engine/generic/quantised_linear.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <memory>

#include "engine/generic/rows.h"

namespace lora::engine {
namespace {

struct Holder : torch::CustomClassHolder {
  explicit Holder(const QuantisedMatrix& matrix) : weight(matrix) {}
  QuantisedMatrix weight;
};

at::Tensor product(const at::Tensor& x, const QuantisedMatrix& weight) {
  Workspace workspace;
  const at::Tensor rows = rows_of(x);
  at::Tensor y = at::empty({rows.size(0), weight.rows()}, at::kFloat);
  multiply(rows, weight, y, workspace);
  return shaped_like(y, x);
}

struct QuantisedLinear : torch::autograd::Function<QuantisedLinear> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const c10::intrusive_ptr<Holder>& holder) {
    context->saved_data["weight"] = c10::IValue::make_capsule(holder);
    return product(x, holder->weight);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto capsule = context->saved_data["weight"].toCapsule();
    const QuantisedMatrix& weight = static_cast<const Holder&>(*capsule).weight;
    const at::Tensor rows = rows_of(gradients[0]);
    at::Tensor dx = at::empty({rows.size(0), weight.columns()}, at::kFloat);
    Workspace workspace;
    multiply_transposed(rows, weight, dx, false, workspace);
    return {shaped_like(dx, gradients[0]), at::Tensor()};
  }
};

}  // namespace

at::Tensor quantised_linear(const at::Tensor& x, const QuantisedMatrix& weight) {
  if (!x.requires_grad()) return product(x, weight);
  return QuantisedLinear::apply(x, c10::make_intrusive<Holder>(weight));
}

}  // namespace lora::engine
