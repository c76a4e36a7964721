#include "lora/adapter/token_indices.h"

namespace lora {

std::map<std::string, std::set<std::int64_t>> token_indices_of(
    const std::vector<const Adapter*>& adapters) {
  std::map<std::string, std::set<std::int64_t>> indices;
  for (const Adapter* adapter : adapters)
    for (const TokenRows& rows : adapter->tokens)
      indices[rows.module_path].insert(rows.indices.begin(), rows.indices.end());
  return indices;
}

}  // namespace lora
