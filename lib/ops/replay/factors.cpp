#include "ops/replay/factors.h"

#include <algorithm>
#include <span>

namespace lora::replay {
namespace {

std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

// `count` values from flat index `first`, as f32.
void read(const Tensor& tensor, std::int64_t first, std::int64_t count,
          std::optional<DType> held_in, float* out) {
  const std::size_t item = bits_of(tensor.dtype) / 8;
  const std::byte* from = tensor.bytes.data() + size(first) * item;
  if (tensor.dtype == DType::f64)
    widen(tensor.dtype, from, std::span<float>(out, size(count)));
  else
    best_kernels().load(tensor.dtype, from, out, size(count));
  if (held_in) best_kernels().round(*held_in, out, size(count));
}

}  // namespace

std::int64_t rank_of(const Addition& addition) { return addition.a.shape[0]; }

RightFactor pack_right(const Addition& addition, std::optional<DType> held_in) {
  const std::int64_t rank = rank_of(addition);
  RightFactor right;
  right.rank = rank;
  right.columns = addition.is_transposed ? addition.b.shape[0] : addition.a.shape[1];
  const std::int64_t panel_count = (right.columns + kPanel - 1) / kPanel;
  right.panels.assign(size(panel_count * kPanel * rank), 0.0F);
  const auto place = [&](std::int64_t k, std::int64_t j) -> float& {
    return right.panels[size(((j / kPanel) * rank + k) * kPanel + j % kPanel)];
  };
  const Tensor& source = addition.is_transposed ? addition.b : addition.a;
  std::vector<float> row(size(source.shape[1]));
  for (std::int64_t i = 0; i < source.shape[0]; ++i) {
    read(source, i * source.shape[1], source.shape[1], held_in, row.data());
    for (std::int64_t j = 0; j < source.shape[1]; ++j) {
      if (addition.is_transposed)
        place(j, i) = row[size(j)];
      else
        place(i, j) = row[size(j)];
    }
  }
  return right;
}

void gather_left(const Addition& addition, std::int64_t first, std::int64_t count,
                 std::optional<DType> held_in, std::vector<float>& out) {
  const std::int64_t rank = rank_of(addition);
  out.resize(size(count * rank));
  if (!addition.is_transposed) {
    read(addition.b, first * rank, count * rank, held_in, out.data());
    return;
  }
  std::vector<float> column(size(count));
  for (std::int64_t k = 0; k < rank; ++k) {
    read(addition.a, k * addition.a.shape[1] + first, count, held_in, column.data());
    for (std::int64_t i = 0; i < count; ++i) out[size(i * rank + k)] = column[size(i)];
  }
}

}  // namespace lora::replay
