// Products with a quantised matrix: a few rows of it at a time are widened into a tile that stays
// in the cache until the product has read it, so the whole is never there in f32.
#include <ATen/Parallel.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <vector>

#include "engine/kernels/kernels.h"
#include "engine/quantised_matrix.h"

namespace lora::engine {
namespace {

constexpr std::int64_t kFewRows = 4;

template <typename Body>
void for_tiles(const QuantisedMatrix& weight, Workspace& workspace, Body&& body) {
  constexpr std::int64_t kValues = std::int64_t{1} << 20;
  const std::int64_t step =
      std::max<std::int64_t>(64, kValues / std::max<std::int64_t>(1, weight.columns()));
  for (std::int64_t begin = 0; begin < weight.rows(); begin += step) {
    const std::int64_t count = std::min(step, weight.rows() - begin);
    const at::Tensor tile = workspace.get(Slot::wide_weight, {count, weight.columns()});
    weight.widen(begin, count, tile);
    body(begin, count, tile);
  }
}

// Each thread widens one row of the weight and multiplies with it at once.
void few_rows(const at::Tensor& x, const QuantisedMatrix& weight, at::Tensor& y) {
  const std::int64_t rows = x.size(0);
  const std::int64_t inputs = weight.columns();
  const std::int64_t outputs = weight.rows();
  const float* in = x.const_data_ptr<float>();
  float* out = y.mutable_data_ptr<float>();
  const std::int64_t grain = std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, inputs));
  at::parallel_for(0, outputs, grain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> wide(static_cast<std::size_t>(inputs));
    float products[kFewRows];
    for (std::int64_t n = begin; n < end; ++n) {
      weight.widen_row(n, wide.data());
      few_row_product(in, rows, wide.data(), 1, inputs, products);
      for (std::int64_t row = 0; row < rows; ++row) out[row * outputs + n] = products[row];
    }
  });
}

}  // namespace

void multiply(const at::Tensor& input, const QuantisedMatrix& weight, at::Tensor& y,
              Workspace& workspace) {
  const at::Tensor x = input.to(at::kFloat);
  if (y.scalar_type() != at::kFloat) {
    at::Tensor wide = at::empty(y.sizes(), at::kFloat);
    multiply(x, weight, wide, workspace);
    y.copy_(wide);
    return;
  }
  if (x.size(0) <= kFewRows) {
    few_rows(x.contiguous(), weight, y);
    return;
  }
  for_tiles(weight, workspace, [&](std::int64_t begin, std::int64_t count, const at::Tensor& tile) {
    at::Tensor part = y.narrow(1, begin, count);
    at::mm_out(part, x, tile.t());
  });
}

void multiply_transposed(const at::Tensor& output, const QuantisedMatrix& weight, at::Tensor& dx,
                         bool accumulate, Workspace& workspace) {
  const at::Tensor g = output.to(at::kFloat);
  if (dx.scalar_type() != at::kFloat) {
    at::Tensor wide = at::empty(dx.sizes(), at::kFloat);
    multiply_transposed(g, weight, wide, false, workspace);
    if (accumulate)
      dx.add_(wide);
    else
      dx.copy_(wide);
    return;
  }
  for_tiles(weight, workspace, [&](std::int64_t begin, std::int64_t count, const at::Tensor& tile) {
    const at::Tensor part = g.narrow(1, begin, count);
    if (accumulate || begin > 0)
      dx.addmm_(part, tile);
    else
      at::mm_out(dx, part, tile);
  });
}

}  // namespace lora::engine
