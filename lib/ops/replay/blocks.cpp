#include <algorithm>

#include "lora/adapter/update.h"
#include "ops/replay/plan.h"

namespace lora::replay {
namespace {

struct Extent {
  std::int64_t rows = 0, columns = 0;  // of one expert, or of the whole tensor as a matrix
};

Extent extent_of(const LoraModule& module, const Tensor& base) {
  if (base.shape.empty()) return {1, 1};
  const bool is_stack = module.kind == LayerKind::parameter && base.shape.size() == 3;
  Extent extent{is_stack ? base.shape[1] : base.shape[0], 1};
  for (std::size_t i = is_stack ? 2 : 1; i < base.shape.size(); ++i)
    extent.columns *= base.shape[i];
  return extent;
}

std::string why_not(const LoraModule& module) {
  if (module.diagonal)
    return "KaSA merges into a base whose smallest singular components were cut off";
  if (module.pool > 1) return "PEFT does not merge QALoRA";
  if (module.groups > 1) return "PEFT does not merge convolutions with groups";
  return {};
}

}  // namespace

std::vector<Block> blocks_of(const LoraModule& module, LayerKind base_kind, Target& target,
                             std::string& problem) {
  const Tensor& base = target.base;
  problem = why_not(module);
  if (!problem.empty()) return {};
  const Extent extent = extent_of(module, base);
  const MatrixShape update = update_shape(module);
  const bool fits = update.rows == extent.rows && update.columns == extent.columns;
  const bool fits_transposed = update.rows == extent.columns && update.columns == extent.rows;
  const bool transposed = is_transposed(module, base_kind) ? fits_transposed || !fits : !fits;
  if (!fits && !fits_transposed) {
    problem = "the update is [" + std::to_string(update.rows) + ", " +
              std::to_string(update.columns) + "], the weight " + shape_to_string(base.shape);
    return {};
  }
  const bool always_rounds = module.kind == LayerKind::parameter ||
                             module.kind == LayerKind::embedding ||
                             module.base_name.ends_with("in_proj_weight");
  const int times = std::max(1, static_cast<int>(module.times));
  std::vector<Block> blocks;
  for (UpdateFactor& factor : update_factors(module)) {
    const std::int64_t rows = transposed ? factor.a.shape[1] : factor.b.shape[0];
    Block block{factor.expert * extent.rows + factor.first_row, rows, {}};
    // nn.MultiheadAttention adds the update of out_proj to its weight, then merges out_proj itself.
    for (int i = 0; i < times; ++i)
      block.additions.push_back({factor.a, factor.b, transposed, factor.scaling / times,
                                 always_rounds || (times > 1 && i == 0), i > 0});
    blocks.push_back(std::move(block));
  }
  std::sort(blocks.begin(), blocks.end(),
            [](const Block& x, const Block& y) { return x.first_row < y.first_row; });
  target.columns = extent.columns;
  target.rows = extent.columns == 0 ? 0 : base.numel() / extent.columns;
  std::int64_t covered = 0;
  for (const Block& block : blocks) {
    if (block.first_row != covered) break;
    covered += block.rows;
  }
  if (covered != target.rows) {
    problem = "the factors cover " + std::to_string(covered) + " of " +
              std::to_string(target.rows) + " rows of the weight";
    return {};
  }
  return blocks;
}

}  // namespace lora::replay
