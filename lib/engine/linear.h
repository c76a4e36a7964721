// A linear layer with the LoRA branches of any number of adapters.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model.h"
#include "engine/parameter.h"
#include "engine/workspace.h"

namespace lora::engine {

/// One adapter's branch on a layer: y += scaling * (x a^T) b^T, all f32.
struct LoraBranch {
  at::Tensor a;                                      ///< [rank, in]
  at::Tensor b;                                      ///< [out, rank]
  at::Tensor bias;                                   ///< [out] or undefined
  at::Tensor a_gradient, b_gradient, bias_gradient;  ///< views of the flat gradients, or undefined
  double scaling = 1;
  double dropout = 0;
  std::uint64_t stream = 0;  ///< of the dropout mask
  bool is_trainable() const { return a_gradient.defined(); }
};

/// What a pass through the model is for.
struct Pass {
  bool with_adapters = true;
  const StepContext* dropout = nullptr;  ///< null: no dropout
};

/// x a^T of each branch, kept from forward to backward.
using BranchProducts = std::vector<at::Tensor>;

class Linear {
 public:
  Linear(std::string module_path, Parameter& weight, Parameter* bias);

  /// y [rows, out] from x [rows, in]. `products` is filled when not null.
  void forward(const at::Tensor& x, at::Tensor& y, const Pass& pass, Workspace& workspace,
               BranchProducts* products = nullptr) const;

  /// Adds to the gradients of everything trainable here, given the gradient g [rows, out] and the
  /// input and products of forward. `dx` null: not needed; otherwise it receives (or is added) the
  /// gradient of x.
  void backward(const at::Tensor& x, const at::Tensor& g, const BranchProducts& products,
                const Pass& pass, Workspace& workspace, at::Tensor* dx, bool accumulate) const;

  bool has_trainable() const;
  const std::string& module_path() const { return module_path_; }
  const Parameter& weight() const { return weight_; }
  std::int64_t inputs() const { return weight_.shape[1]; }
  std::int64_t outputs() const { return weight_.shape[0]; }
  std::vector<LoraBranch>& branches() { return branches_; }

 private:
  at::Tensor dropped(const at::Tensor& x, const LoraBranch& branch, const Pass& pass,
                     Workspace& workspace, Slot slot) const;
  void branch_backward(const LoraBranch& branch, const at::Tensor& product, const at::Tensor& x,
                       const at::Tensor& g, const Pass& pass, Workspace& workspace,
                       at::Tensor* dx) const;

  std::string module_path_;
  Parameter& weight_;
  Parameter* bias_;
  std::vector<LoraBranch> branches_;
};

}  // namespace lora::engine
