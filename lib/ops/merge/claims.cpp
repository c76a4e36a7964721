#include "ops/merge/claims.h"

#include <system_error>

#include "lora/base/error.h"
#include "lora/checkpoint/base_lock.h"
#include "lora/ops/fit.h"
#include "ops/adapter_digest.h"
#include "ops/merge/record.h"
#include "ops/rules/rule.h"

namespace lora::merging {
namespace {

std::string weighted(const Digest& digest, double weight) {
  return digest.hex().substr(0, 12) + (weight == 1 ? "" : " with weight " + rules::figure(weight));
}

void compare_adapters(const Record& record, const std::vector<WeightedAdapter>& adapters,
                      int threads, std::vector<std::string>& faults) {
  if (record.adapters.size() != adapters.size()) {
    faults.push_back("it records a merge of " + std::to_string(record.adapters.size()) +
                     " adapters, this is one of " + std::to_string(adapters.size()));
    return;
  }
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    const std::string said = weighted(record.adapters[i], record.weights[i]);
    const std::string found =
        weighted(adapter_digest(adapters[i].adapter, threads), adapters[i].weight);
    if (said != found) faults.push_back("it records the adapter " + said + ", this is " + found);
  }
}

void compare_root(const Digest& said, const Digest& found, const std::string& what,
                  std::vector<std::string>& faults) {
  if (said != found)
    faults.push_back("it records " + what + " " + said.hex().substr(0, 12) + ", this is " +
                     found.hex().substr(0, 12));
}

}  // namespace

std::vector<std::string> contradicted_claims(const std::vector<WeightedAdapter>& adapters,
                                             const Checkpoint& base, const Checkpoint& merged,
                                             int threads, const Sinks& sinks) {
  std::error_code ignored;
  if (merged.directory.empty() ||
      !std::filesystem::is_regular_file(merged.directory / kRecordName, ignored))
    return {};
  try {
    const std::optional<Record> record = read_record(merged.directory);
    if (!record) return {"it is no record of a merge"};
    std::vector<std::string> faults;
    compare_adapters(*record, adapters, threads, faults);
    compare_root(record->base_root, lock_of(base, threads, sinks).root, "the base", faults);
    compare_root(record->root, compute_base_lock(merged, threads, sinks).root, "the result",
                 faults);
    return faults;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::interrupted) throw;
    return {error.message()};
  }
}

}  // namespace lora::merging
