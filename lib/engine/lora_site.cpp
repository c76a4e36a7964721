#include "engine/lora_site.h"

#include <algorithm>

#include "lora/base/random.h"

namespace lora::engine {

bool LoraSite::has_trainable() const {
  if (weight->is_trainable() || (bias != nullptr && bias->is_trainable())) return true;
  return std::any_of(branches.begin(), branches.end(),
                     [](const LoraBranch& branch) { return branch.is_trainable(); });
}

std::uint64_t dropout_key(std::uint64_t stream, const StepContext& context) {
  const CounterRandom random(context.seed, stream);
  const auto words = random.block((static_cast<std::uint64_t>(context.step) << 24) ^
                                  static_cast<std::uint64_t>(context.micro_batch));
  return (static_cast<std::uint64_t>(words[1]) << 32) | words[0];
}

}  // namespace lora::engine
