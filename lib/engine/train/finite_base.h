// Whether a loss that is not finite is the base's fault.
#pragma once

#include <cstdint>
#include <string>

#include "lora/checkpoint/checkpoint.h"

namespace lora::engine {

/// Throws Error(malformed) naming the first tensor of the base with a value that is not finite, its
/// place and that `what` is not finite at `step` for it. Reads the whole base.
void require_finite_base(const Checkpoint& base, const std::string& what, std::int64_t step);

}  // namespace lora::engine
