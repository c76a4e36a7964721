#include <ATen/ops/gelu.h>
#include <ATen/ops/hardswish.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/relu6.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tanh.h>

#include "engine/generic/layers.h"
#include "lora/base/error.h"

namespace lora::engine {

at::Tensor activate(const std::string& name, const at::Tensor& x) {
  if (name == "gelu" || name == "gelu_python") return at::gelu(x);
  if (name == "gelu_new" || name == "gelu_fast" || name == "gelu_pytorch_tanh")
    return at::gelu(x, "tanh");
  if (name == "quick_gelu") return x.mul(at::sigmoid(x.mul(1.702)));
  if (name == "linear") return x;
  if (name == "relu") return at::relu(x);
  if (name == "relu2") return at::relu(x).square();
  if (name == "relu6") return at::relu6(x);
  if (name == "leaky_relu") return at::leaky_relu(x);
  if (name == "hardswish") return at::hardswish(x);
  if (name == "sigmoid") return at::sigmoid(x);
  if (name == "silu" || name == "swish") return at::silu(x);
  if (name == "tanh") return at::tanh(x);
  throw Error(ErrorKind::internal, "running the model: the activation \"" + name +
                                       "\" passed the configuration but has no function");
}

}  // namespace lora::engine
