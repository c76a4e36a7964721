#include "engine/llama/passes.h"

#include <ATen/ops/add.h>
#include <ATen/ops/rsqrt.h>

namespace lora::engine {
namespace {

// Calls body with a null pointer of the tensor's element type.
template <typename Body>
void with_type(const at::Tensor& tensor, Body&& body) {
  if (tensor.scalar_type() == at::kBFloat16)
    body(static_cast<Bf16*>(nullptr));
  else
    body(static_cast<float*>(nullptr));
}

template <typename T>
const T* in(const at::Tensor& tensor, T* /*type*/) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <typename T>
T* out_of(at::Tensor& tensor, T* /*type*/) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

std::int64_t rows_of(const at::Tensor& x, std::int64_t width) { return x.numel() / width; }

}  // namespace

void norm_forward(const at::Tensor& x, const NormWeight& weight, at::Tensor& out) {
  with_type(x, [&](auto* x_type) {
    with_type(out, [&](auto* out_type) {
      rms_norm(in(x, x_type), weight, rows_of(x, weight.width), out_of(out, out_type));
    });
  });
}

void norm_backward(const at::Tensor& g, const at::Tensor& x, const NormWeight& weight,
                   bool accumulate, at::Tensor& dx) {
  const std::int64_t rows = rows_of(x, weight.width);
  with_type(g, [&](auto* g_type) {
    with_type(x, [&](auto* x_type) {
      with_type(dx, [&](auto* dx_type) {
        rms_norm_backward(in(g, g_type), in(x, x_type), weight, rows, accumulate,
                          out_of(dx, dx_type));
      });
    });
  });
}

void add_norm_weight_gradient(const at::Tensor& g, const at::Tensor& x, double eps, double scale,
                              const at::Tensor& gradient) {
  const std::int64_t width = gradient.numel();
  const at::Tensor rows = x.reshape({-1, width}).to(at::kFloat);
  const at::Tensor inverse = rows.square().mean(1, true).add(eps).rsqrt();
  gradient.add_(rows.mul(inverse).mul(g.reshape({-1, width})).sum(0), scale);
}

void gate_forward(Gate kind, const at::Tensor& gate, const at::Tensor& up, at::Tensor& out) {
  const GateShape shape{gate.size(0), gate.size(1), gate.stride(0)};
  with_type(gate, [&](auto* type) {
    gated(kind, in(gate, type), in(up, type), shape, out_of(out, type));
  });
}

void gate_backward(Gate kind, const at::Tensor& g, at::Tensor& gate, at::Tensor& up) {
  const GateShape shape{gate.size(0), gate.size(1), gate.stride(0)};
  with_type(gate, [&](auto* type) {
    gated_backward(kind, in(g, type), shape, out_of(gate, type), out_of(up, type));
  });
}

void rows_to_heads(const at::Tensor& rows, HeadShape shape, const Rotation& rotation,
                   at::Tensor& heads) {
  shape.stride = rows.stride(0);
  with_type(rows,
            [&](auto* type) { split_heads(in(rows, type), shape, rotation, out_of(heads, type)); });
}

void heads_to_rows(const at::Tensor& heads, HeadShape shape, const Rotation& rotation,
                   at::Tensor& rows) {
  shape.stride = rows.stride(0);
  with_type(rows,
            [&](auto* type) { merge_heads(in(heads, type), shape, rotation, out_of(rows, type)); });
}

void add_scaled(const at::Tensor& y, const at::Tensor& x, double scale, at::Tensor& out) {
  with_type(x, [&](auto* type) {
    add_scaled(y.const_data_ptr<float>(), in(x, type), x.numel(), static_cast<float>(scale),
               out.mutable_data_ptr<float>());
  });
}

void scale_into(const at::Tensor& x, double scale, at::Tensor& out) {
  const auto factor = static_cast<float>(scale);
  with_type(x, [&](auto* x_type) {
    with_type(out, [&](auto* out_type) {
      convert_all(in(x, x_type), x.numel(), factor, out_of(out, out_type));
    });
  });
}

}  // namespace lora::engine
