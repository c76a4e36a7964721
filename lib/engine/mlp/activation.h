// The activation functions an mlp may name, with their derivatives.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace lora::engine {

class Activation {
 public:
  /// Throws Error(unsupported) for a name that MlpConfig does not list ("none" and "identity" leave
  /// values as they are).
  explicit Activation(const std::string& name);

  at::Tensor forward(const at::Tensor& x) const;
  /// Gradient of x given g, the gradient of y = forward(x).
  at::Tensor backward(const at::Tensor& g, const at::Tensor& x, const at::Tensor& y) const;

 private:
  enum class Kind { identity, relu, gelu, gelu_tanh, silu, tanh, sigmoid, softmax, log_softmax };
  Kind kind_;
};

}  // namespace lora::engine
