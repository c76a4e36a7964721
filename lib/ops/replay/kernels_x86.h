// Sets of kernels for x86-64, compiled for more than the baseline of the build.
#pragma once

#include <vector>

#include "ops/replay/kernels.h"

namespace lora::replay {

/// Those this processor can run, slowest first; empty on other architectures.
std::vector<const Kernels*> x86_kernels();

}  // namespace lora::replay
