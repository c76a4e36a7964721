#include "lora/adapter/update.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>

namespace lora {
namespace {

// The same bytes as a matrix: the first dimension stays, the others are joined.
std::int64_t columns_of(const Tensor& tensor) {
  return std::accumulate(tensor.shape.begin() + 1, tensor.shape.end(), std::int64_t{1},
                         std::multiplies<>());
}

Tensor as_matrix(const Tensor& tensor) {
  Tensor matrix = tensor;
  matrix.shape = {tensor.shape[0], columns_of(tensor)};
  return matrix;
}

std::size_t item_bytes(const Tensor& tensor) { return bits_of(tensor.dtype) / 8; }

Tensor rows_of(const Tensor& matrix, std::int64_t first, std::int64_t count) {
  const std::size_t row = static_cast<std::size_t>(matrix.shape[1]) * item_bytes(matrix);
  Tensor slice = matrix;
  slice.shape[0] = count;
  slice.bytes = matrix.bytes.subspan(static_cast<std::size_t>(first) * row,
                                     static_cast<std::size_t>(count) * row);
  return slice;
}

// B [out, rank * experts] is rank-major: column k * experts + e belongs to expert e.
Tensor columns_of_expert(const Tensor& b, std::int64_t experts, std::int64_t expert) {
  const std::size_t item = item_bytes(b);
  const std::size_t stride = static_cast<std::size_t>(experts) * item;
  std::vector<std::byte> data(b.bytes.size() / static_cast<std::size_t>(experts));
  const std::byte* from = b.bytes.data() + static_cast<std::size_t>(expert) * item;
  for (std::size_t at = 0; at < data.size(); at += item, from += stride)
    std::memcpy(data.data() + at, from, item);
  return Tensor::from_bytes(b.dtype, {b.shape[0], b.shape[1] / experts}, std::move(data));
}

// Row k of a times entry k of the diagonal. The product of two F32 needs more bits than F32 has.
Tensor scale_rows(const Tensor& a, const Tensor& diagonal) {
  std::vector<double> values = a.to_f64();
  const std::vector<double> scales = diagonal.to_f64();
  const std::size_t columns = static_cast<std::size_t>(a.shape[1]);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] *= scales[i / columns];
  std::vector<std::byte> data(values.size() * sizeof(double));
  std::memcpy(data.data(), values.data(), data.size());
  return Tensor::from_bytes(DType::f64, a.shape, std::move(data));
}

// Compact [rows, columns] to [rows, columns * blocks]: consecutive chunks of rows on the diagonal.
Tensor expand_blocks(const Tensor& compact, std::int64_t blocks) {
  const std::size_t row = static_cast<std::size_t>(compact.shape[1]) * item_bytes(compact);
  const std::int64_t chunk = compact.shape[0] / blocks;
  std::vector<std::byte> data(compact.bytes.size() * static_cast<std::size_t>(blocks));
  for (std::int64_t i = 0; i < compact.shape[0]; ++i) {
    const std::size_t at = static_cast<std::size_t>(i * blocks + i / chunk) * row;
    std::memcpy(data.data() + at, compact.bytes.data() + static_cast<std::size_t>(i) * row, row);
  }
  return Tensor::from_bytes(compact.dtype, {compact.shape[0], compact.shape[1] * blocks},
                            std::move(data));
}

Tensor repeat_columns(const Tensor& a, std::int64_t times) {
  const std::size_t item = item_bytes(a);
  std::vector<std::byte> data(a.bytes.size() * static_cast<std::size_t>(times));
  for (std::size_t at = 0; at < data.size(); at += item) {
    const std::size_t source = at / item / static_cast<std::size_t>(times);
    std::memcpy(data.data() + at, a.bytes.data() + source * item, item);
  }
  return Tensor::from_bytes(a.dtype, {a.shape[0], a.shape[1] * times}, std::move(data));
}

std::vector<UpdateFactor> expert_factors(const LoraModule& module, double scaling) {
  const Tensor a = as_matrix(module.a);
  const Tensor b = as_matrix(module.b);
  const std::int64_t rank = a.shape[0] / module.experts;
  std::vector<UpdateFactor> factors;
  for (std::int64_t e = 0; e < module.experts; ++e)
    factors.push_back(
        {rows_of(a, e * rank, rank), columns_of_expert(b, module.experts, e), scaling, e, 0});
  return factors;
}

// Rows [out / blocks] of b with columns [rank / blocks] meet rows [rank / blocks] of a.
std::vector<UpdateFactor> row_block_factors(const Tensor& a, const Tensor& b, std::int64_t blocks,
                                            double scaling) {
  const std::int64_t rank = a.shape[0] / blocks;
  const std::int64_t rows = b.shape[0] / blocks;
  std::vector<UpdateFactor> factors;
  for (std::int64_t i = 0; i < blocks; ++i)
    factors.push_back(
        {rows_of(a, i * rank, rank), rows_of(b, i * rows, rows), scaling, 0, i * rows});
  return factors;
}

}  // namespace

std::vector<UpdateFactor> update_factors(const LoraModule& module) {
  double scaling = module.scaling * module.times;
  if (module.experts > 1) return expert_factors(module, scaling);
  Tensor a = as_matrix(module.a);
  if (module.diagonal) a = scale_rows(a, *module.diagonal);
  if (module.blocks_a > 1) a = expand_blocks(a, module.blocks_a);
  if (module.pool > 1) {
    // QALoRA multiplies the mean of each group of inputs by the number of groups.
    scaling *= static_cast<double>(a.shape[1]) / static_cast<double>(module.pool);
    a = repeat_columns(a, module.pool);
  }
  const Tensor b = as_matrix(module.b);
  const std::int64_t blocks = std::max(module.groups, module.blocks_b);
  if (blocks > 1) return row_block_factors(a, b, blocks, scaling);
  return {{std::move(a), b, scaling, 0, 0}};
}

MatrixShape update_shape(const LoraModule& module) {
  return {module.b.shape[0], columns_of(module.a) * module.blocks_a * module.pool};
}

bool is_transposed(const LoraModule& module, LayerKind base_kind) {
  return module.kind == LayerKind::embedding || base_kind == LayerKind::conv1d || module.is_in_out;
}

}  // namespace lora
