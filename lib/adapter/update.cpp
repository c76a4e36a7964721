#include "lora/adapter/update.h"

#include <functional>
#include <numeric>

namespace lora {
namespace {

// The same bytes as a matrix: the first dimension stays, the others are joined.
Tensor as_matrix(const Tensor& tensor) {
  Tensor matrix = tensor;
  const std::int64_t columns = std::accumulate(tensor.shape.begin() + 1, tensor.shape.end(),
                                               std::int64_t{1}, std::multiplies<>());
  matrix.shape = {tensor.shape[0], columns};
  return matrix;
}

}  // namespace

std::vector<UpdateFactor> update_factors(const LoraModule& module) {
  return {{as_matrix(module.a), as_matrix(module.b), module.scaling * module.times, 0, 0}};
}

MatrixShape update_shape(const LoraModule& module) {
  return {module.b.shape[0], as_matrix(module.a).shape[1]};
}

bool is_transposed(const LoraModule& module, LayerKind base_kind) {
  return module.kind == LayerKind::embedding || base_kind == LayerKind::conv1d || module.is_in_out;
}

}  // namespace lora
