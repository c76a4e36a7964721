// The configuration of an adapter whose source had none, from its keys and the person's flags.
#pragma once

#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/ops/save.h"

namespace lora {

/// `known_modules`: every module path of the base as far as known, to decide whether short target
/// names ("q_proj") select exactly the adapted modules; otherwise full paths are written.
AdapterConfig config_from_keys(const TensorMap& tensors, const SaveFlags& flags,
                               const std::vector<std::string>& known_modules,
                               const std::string& source);

}  // namespace lora
