#include "engine/workspace.h"

#include <ATen/ops/empty.h>
#include <c10/util/accumulate.h>

namespace lora::engine {
namespace {

at::Tensor view(at::Tensor& buffer, at::IntArrayRef sizes, at::ScalarType type) {
  const std::int64_t needed = c10::multiply_integers(sizes);
  if (!buffer.defined() || buffer.numel() < needed) {
    buffer = at::Tensor();
    buffer = at::empty({needed}, type);
  }
  return buffer.narrow(0, 0, needed).view(sizes);
}

}  // namespace

at::Tensor Workspace::get(Slot slot, at::IntArrayRef sizes) {
  return view(slots_[static_cast<std::size_t>(slot)], sizes, at::kFloat);
}

at::Tensor Workspace::get_bf16(std::size_t index, at::IntArrayRef sizes) {
  return view(bf16_[index], sizes, at::kBFloat16);
}

void ensure(at::Tensor& tensor, at::IntArrayRef sizes) {
  if (tensor.defined() && tensor.sizes() == sizes) return;
  tensor = at::Tensor();
  tensor = at::empty(sizes, at::kFloat);
}

}  // namespace lora::engine
