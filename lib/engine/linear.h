// A linear layer with the plain LoRA branches of any number of adapters, without an autograd graph.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "engine/lora_site.h"
#include "engine/workspace.h"

namespace lora::engine {

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

  bool has_trainable() const { return site_.has_trainable(); }
  const Parameter& weight() const { return *site_.weight; }
  std::int64_t inputs() const { return site_.inputs(); }
  std::int64_t outputs() const { return site_.outputs(); }
  LoraSite& site() { return site_; }

 private:
  at::Tensor dropped(const at::Tensor& x, const LoraBranch& branch, const Pass& pass,
                     Workspace& workspace, Slot slot) const;
  void branch_backward(const LoraBranch& branch, const at::Tensor& product, const at::Tensor& x,
                       const at::Tensor& g, const Pass& pass, Workspace& workspace,
                       at::Tensor* dx) const;

  LoraSite site_;
};

}  // namespace lora::engine
