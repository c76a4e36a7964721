// The verdict on a merged checkpoint as one of verify's checks.
#pragma once

#include <optional>

#include "lora/ops/verify.h"

namespace lora::rules {

/// "merged": passed, failed, or not made without a base or where a kind cannot be replayed.
CheckResult check_of_merged(const std::optional<MergedReport>& merged);

}  // namespace lora::rules
