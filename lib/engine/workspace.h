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
  block,
  block_gradient,
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
  factor,
  factor_gradient,
  widened,
  wide_weight,
  product_input,
  product_output,
  capped_logits,
  count,
};

class Workspace {
 public:
  /// An uninitialised tensor; memory is kept and grows to the largest request.
  at::Tensor get(Slot slot, at::IntArrayRef sizes, at::ScalarType type = at::kFloat);

 private:
  std::array<at::Tensor, static_cast<std::size_t>(Slot::count)> slots_;
};

/// Makes `tensor` one of this shape and type, keeping its memory when it already is.
void ensure(at::Tensor& tensor, at::IntArrayRef sizes, at::ScalarType type = at::kFloat);

}  // namespace lora::engine
