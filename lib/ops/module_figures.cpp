#include "ops/module_figures.h"

#include "lora/base/parallel.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora {

std::vector<ModuleFigures> module_figures(const Adapter& adapter, const Checkpoint* base,
                                          int threads) {
  std::vector<ModuleFigures> rows(adapter.modules.size());
  parallel_for(rows.size(), threads, [&](std::size_t i) {
    const LoraModule& module = adapter.modules[i];
    ModuleFigures& row = rows[i];
    row.module_path = module.module_path;
    row.rank = module.rank;
    row.alpha = module.alpha;
    row.scaling = module.scaling;
    row.a = statistics_of(module.a);
    row.b = statistics_of(module.b);
    row.update = update_statistics(module);
    const Tensor* weight = base ? base->find(module.module_path + ".weight") : nullptr;
    if (weight == nullptr || !is_float(weight->dtype)) return;
    const TensorStatistics statistics = statistics_of(*weight);
    row.base_mean = statistics.mean;
    row.base_norm = statistics.norm;
    if (statistics.norm > 0) row.relative_update = row.update.norm / statistics.norm;
  });
  return rows;
}

}  // namespace lora
