#include "lora/ops/statistics.h"

#include <algorithm>

#include "ops/numbers/product.h"

namespace lora {

using namespace numbers;

TensorStatistics statistics_of(const Tensor& tensor) {
  const MatrixView matrix(tensor);
  std::vector<Tally> tallies;
  for (std::int64_t row = 0; row < matrix.rows; row += rows_at_once(matrix))
    tallies.push_back(tally_rows(matrix, row, std::min(rows_at_once(matrix), matrix.rows - row)));
  return join(matrix, tallies);
}

UpdateStatistics update_statistics(const LoraModule& module) {
  std::vector<ProductFigures> products;
  for (const UpdateFactor& factor : update_factors(module)) {
    std::optional<ProductFigures> figures = figures_of(factor, module.kind == LayerKind::embedding);
    if (!figures) {
      products.clear();
      break;
    }
    products.push_back(std::move(*figures));
  }
  UpdateStatistics result = add_up(products, module.rank);
  result.is_direction = module.magnitude.has_value();
  return result;
}

}  // namespace lora
