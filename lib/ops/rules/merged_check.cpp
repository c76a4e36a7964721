#include "ops/rules/merged_check.h"

namespace lora::rules {
namespace {

constexpr MergeProof kAll[] = {
    MergeProof::merge,   MergeProof::safe_merge, MergeProof::held_low,
    MergeProof::one_ulp, MergeProof::saved,      MergeProof::unchanged,
    MergeProof::differs, MergeProof::missing,    MergeProof::not_replayed};

std::string counts_of(const MergedReport& merged) {
  std::string text = std::to_string(merged.tensors.size()) + " tensors";
  std::string separator = ": ";
  for (const MergeProof proof : kAll) {
    const std::int64_t count = merged.count(proof);
    if (count == 0) continue;
    text += separator + std::to_string(count) + " " + std::string(to_string(proof));
    separator = ", ";
  }
  return text;
}

}  // namespace

CheckResult check_of_merged(const std::optional<MergedReport>& merged) {
  if (!merged) return {"merged", CheckStatus::not_made, "no base given (--base)"};
  if (!merged->problem.empty()) return {"merged", CheckStatus::failed, merged->problem};
  const std::string counts = counts_of(*merged);
  if (merged->is_reproduced() && merged->adapter_keys.empty() && !merged->has_adapter_config &&
      !merged->total_size)
    return {"merged", CheckStatus::passed, counts};
  const bool is_only_unknown =
      merged->count(MergeProof::differs) == 0 && merged->count(MergeProof::missing) == 0 &&
      merged->count(MergeProof::not_replayed) != 0 && merged->extra.empty() &&
      merged->adapter_keys.empty() && !merged->has_adapter_config && !merged->total_size;
  return {"merged", is_only_unknown ? CheckStatus::not_made : CheckStatus::failed, counts};
}

}  // namespace lora::rules
