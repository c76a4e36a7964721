// Products with a quantised matrix: a few rows of it at a time are widened into a tile that stays
// in the cache until the product has read it, so the whole is never there in f32.
#include <ATen/Parallel.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <vector>

#include "engine/kernels/kernels.h"
#include "engine/product.h"
#include "engine/quantised_matrix.h"

namespace lora::engine {
namespace {

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

void multiply(const at::Tensor& x, const QuantisedMatrix& weight, at::Tensor& y,
              Workspace& workspace) {
  in_type(at::kFloat, x, y, false, workspace,
          [&](const at::Tensor& input, at::Tensor& output, bool /*accumulate*/) {
            if (input.size(0) <= kFewRows) {
              few_rows(input.contiguous(), weight, output);
              return;
            }
            for_tiles(weight, workspace,
                      [&](std::int64_t begin, std::int64_t count, const at::Tensor& tile) {
                        at::Tensor part = output.narrow(1, begin, count);
                        at::mm_out(part, input, tile.t());
                      });
          });
}

void multiply_transposed(const at::Tensor& g, const QuantisedMatrix& weight, at::Tensor& dx,
                         bool accumulate, Workspace& workspace) {
  in_type(at::kFloat, g, dx, accumulate, workspace,
          [&](const at::Tensor& input, at::Tensor& output, bool adds) {
            for_tiles(weight, workspace,
                      [&](std::int64_t begin, std::int64_t count, const at::Tensor& tile) {
                        add_product(input.narrow(1, begin, count), tile, adds || begin > 0, output);
                      });
          });
}

}  // namespace lora::engine
