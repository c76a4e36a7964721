// The third comparison of verify: recorded outputs against outputs computed now.
#pragma once

#include "lora/ops/verify.h"

namespace lora {

/// Fills `report.outputs`, adds findings LV601-LV604 and the check "outputs". Does nothing but say
/// "not asked" unless options.check_outputs.
void compare_outputs(const VerifyOptions& options, VerifyReport& report);

}  // namespace lora
