#include <algorithm>

#include "lora/base/error.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/ops/verify_merged.h"
#include "ops/adapter_digest.h"
#include "ops/merge/record.h"

namespace lora {

std::optional<std::vector<WeightedAdapter>> recorded_merge(const Checkpoint& merged,
                                                           const std::vector<const Adapter*>& known,
                                                           int threads) {
  if (merged.directory.empty()) return std::nullopt;
  std::optional<merging::Record> record;
  try {
    record = merging::read_record(merged.directory);
  } catch (const Error&) {
    // It names no adapters; compare_merged says what is wrong with it.
  }
  if (!record || (record->adapters.size() == 1 && record->weights.front() == 1))
    return std::nullopt;
  std::vector<Digest> digests;
  for (const Adapter* adapter : known) digests.push_back(adapter_digest(*adapter, threads));
  std::vector<WeightedAdapter> adapters;
  for (std::size_t i = 0; i < record->adapters.size(); ++i) {
    const auto found = std::find(digests.begin(), digests.end(), record->adapters[i]);
    if (found == digests.end()) return std::nullopt;
    adapters.push_back(
        {*known[static_cast<std::size_t>(found - digests.begin())], record->weights[i]});
  }
  return adapters;
}

}  // namespace lora
