// Why a merged checkpoint is not what it should be: other ways to have merged, replayed.
#pragma once

#include <vector>

#include "lora/ops/verify_merged.h"
#include "ops/replay/target.h"

namespace lora::replay {

/// What the comparison with the expected merge left unexplained.
struct Differences {
  const std::vector<Target>& targets;
  const std::vector<Outcome>& outcomes;
};

/// Tries, on the updated targets that differ: not applied, applied twice, subtracted, rsLoRA's
/// scaling exchanged with the plain one, the scale that fits best, transposed, and the candidates.
/// An explanation counts only where the replay of it fits. Untouched targets that differ in numbers
/// point to another base.
std::vector<MergeExplanation> explain(const Differences& differences, const Adapter& adapter,
                                      const Checkpoint& base, const Checkpoint& merged,
                                      const MergedOptions& options);

}  // namespace lora::replay
