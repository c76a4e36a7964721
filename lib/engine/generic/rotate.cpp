#include "engine/generic/rotate.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>

namespace lora::engine {

at::Tensor rotate(const at::Tensor& x, const RotaryTable& table, const SequencePass& pass) {
  const std::int64_t half = table.half();
  const std::int64_t size = 2 * half;
  const auto factors = [&](const float* values) {
    const at::Tensor rows =
        at::from_blob(const_cast<float*>(values), {pass.longest, half}, at::kFloat);
    if (!pass.positions.defined()) return rows;
    return rows.index_select(0, pass.positions.flatten()).view({x.size(0), 1, x.size(2), half});
  };
  const at::Tensor cos = factors(table.cos(0));
  const at::Tensor sin = factors(table.sin(0));
  const at::Tensor first = x.narrow(3, 0, half);
  const at::Tensor second = x.narrow(3, half, half);
  const at::Tensor turned_first = first.mul(cos).sub(second.mul(sin));
  const at::Tensor turned_second = second.mul(cos).add(first.mul(sin));
  if (size == x.size(3)) return at::cat({turned_first, turned_second}, 3);
  return at::cat({turned_first, turned_second, x.narrow(3, size, x.size(3) - size)}, 3);
}

}  // namespace lora::engine
