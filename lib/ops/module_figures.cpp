#include "ops/module_figures.h"

#include "lora/base/parallel.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora {

TensorFigures tensor_figures(const TensorMap& tensors, int threads) {
  std::vector<const TensorMap::value_type*> floats;
  for (const auto& entry : tensors)
    if (is_float(entry.second.dtype)) floats.push_back(&entry);
  std::vector<TensorStatistics> statistics(floats.size());
  parallel_for(floats.size(), threads,
               [&](std::size_t i) { statistics[i] = statistics_of(floats[i]->second); });
  TensorFigures figures;
  for (std::size_t i = 0; i < floats.size(); ++i)
    figures.emplace_hint(figures.end(), floats[i]->first, statistics[i]);
  return figures;
}

std::vector<ModuleFigures> module_figures(const Adapter& adapter, const TensorFigures& tensors,
                                          const Checkpoint* base, int threads) {
  // A module's factors are two of the adapter's tensors and share their bytes.
  std::map<const std::byte*, const TensorStatistics*> by_bytes;
  for (const auto& [key, statistics] : tensors)
    by_bytes[adapter.tensors.at(key).bytes.data()] = &statistics;
  std::vector<ModuleFigures> rows(adapter.modules.size());
  parallel_for(rows.size(), threads, [&](std::size_t i) {
    const LoraModule& module = adapter.modules[i];
    ModuleFigures& row = rows[i];
    row.module_path = module.module_path;
    row.kind = module.kind;
    row.rank = module.rank;
    row.alpha = module.alpha;
    row.scaling = module.scaling;
    row.a = *by_bytes.at(module.a.bytes.data());
    row.b = *by_bytes.at(module.b.bytes.data());
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
