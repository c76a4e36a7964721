// Scratch matrices that survive from one step to the next.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstddef>

namespace lora::engine {

/// Each slot is used by one place at a time; its content is lost when the slot is asked for again.
enum class Slot {
  norm,
  rows,
  head_gradient,
  queries_gradient,
  keys_gradient,
  values_gradient,
  activation,
  activation_gradient,
  norm_gradient,
  logits,
  selected,
  selected_gradient,
  dropped,
  dropped_gradient,
  low_rank,
  low_rank_gradient,
  wide_weight,
  wide_product,
  count,
};

class Workspace {
 public:
  /// An uninitialised f32 tensor; memory is kept and grows to the largest request.
  at::Tensor get(Slot slot, at::IntArrayRef sizes);
  /// bf16 scratch for products in bf16: 0 the input, 1 the output.
  at::Tensor get_bf16(std::size_t index, at::IntArrayRef sizes);

 private:
  std::array<at::Tensor, static_cast<std::size_t>(Slot::count)> slots_;
  std::array<at::Tensor, 2> bf16_;
};

/// Makes `tensor` an f32 tensor of this shape, keeping its memory when it already is.
void ensure(at::Tensor& tensor, at::IntArrayRef sizes);

}  // namespace lora::engine
