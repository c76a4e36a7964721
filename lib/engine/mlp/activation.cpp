#include "engine/mlp/activation.h"

#include <ATen/ops/_log_softmax_backward_data.h>
#include <ATen/ops/_softmax_backward_data.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/sigmoid_backward.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tanh_backward.h>
#include <ATen/ops/threshold_backward.h>

#include "lora/base/error.h"

namespace lora::engine {

Activation::Activation(const std::string& name) {
  if (name == "none" || name == "identity")
    kind_ = Kind::identity;
  else if (name == "relu")
    kind_ = Kind::relu;
  else if (name == "gelu")
    kind_ = Kind::gelu;
  else if (name == "gelu_tanh")
    kind_ = Kind::gelu_tanh;
  else if (name == "silu")
    kind_ = Kind::silu;
  else if (name == "tanh")
    kind_ = Kind::tanh;
  else if (name == "sigmoid")
    kind_ = Kind::sigmoid;
  else if (name == "softmax")
    kind_ = Kind::softmax;
  else if (name == "log_softmax")
    kind_ = Kind::log_softmax;
  else
    throw Error(ErrorKind::unsupported,
                "building an mlp: activation \"" + name +
                    "\", expected relu, gelu, gelu_tanh, silu, tanh, sigmoid, identity, softmax or "
                    "log_softmax");
}

at::Tensor Activation::forward(const at::Tensor& x) const {
  switch (kind_) {
    case Kind::identity:
      return x;
    case Kind::relu:
      return at::relu(x);
    case Kind::gelu:
      return at::gelu(x);
    case Kind::gelu_tanh:
      return at::gelu(x, "tanh");
    case Kind::silu:
      return at::silu(x);
    case Kind::tanh:
      return at::tanh(x);
    case Kind::sigmoid:
      return at::sigmoid(x);
    case Kind::softmax:
      return at::softmax(x, 1);
    case Kind::log_softmax:
      return at::log_softmax(x, 1);
  }
  return x;
}

at::Tensor Activation::backward(const at::Tensor& g, const at::Tensor& x,
                                const at::Tensor& y) const {
  switch (kind_) {
    case Kind::identity:
      return g;
    case Kind::relu:
      return at::threshold_backward(g, y, 0);
    case Kind::gelu:
      return at::gelu_backward(g, x);
    case Kind::gelu_tanh:
      return at::gelu_backward(g, x, "tanh");
    case Kind::silu:
      return at::silu_backward(g, x);
    case Kind::tanh:
      return at::tanh_backward(g, y);
    case Kind::sigmoid:
      return at::sigmoid_backward(g, y);
    case Kind::softmax:
      return at::_softmax_backward_data(g, y, 1, at::kFloat);
    case Kind::log_softmax:
      return at::_log_softmax_backward_data(g, y, 1, at::kFloat);
  }
  return g;
}

}  // namespace lora::engine
