#include "engine/workspace.h"

#include <ATen/ops/empty.h>
#include <c10/util/accumulate.h>

namespace lora::engine {

at::Tensor Workspace::get(Slot slot, at::IntArrayRef sizes, at::ScalarType type) {
  at::Tensor& buffer = slots_[static_cast<std::size_t>(slot)];
  const std::int64_t needed =
      c10::multiply_integers(sizes) * static_cast<std::int64_t>(c10::elementSize(type));
  if (!buffer.defined() || buffer.numel() < needed) {
    buffer = at::Tensor();
    buffer = at::empty({needed}, at::kByte);
  }
  return buffer.narrow(0, 0, needed).view(type).view(sizes);
}

void ensure(at::Tensor& tensor, at::IntArrayRef sizes, at::ScalarType type) {
  if (tensor.defined() && tensor.sizes() == sizes && tensor.scalar_type() == type) return;
  tensor = at::Tensor();
  tensor = at::empty(sizes, type);
}

}  // namespace lora::engine
