// The steps of resolve_targets that have files of their own. `modules` are replicated already.
#pragma once

#include <vector>

#include "lora/adapter/targets.h"

namespace lora {

/// expand_all_linear on a list whose layers are replicated.
void expand_targets(AdapterConfig& config, const ModuleList& modules, bool is_transformers);

/// What target_parameters selects, `lora` being the modules that have LoRA layers already. Throws
/// as resolve_targets does.
std::vector<ParameterTarget> find_parameters(const AdapterConfig& config, const ModuleList& modules,
                                             const std::vector<ModuleInfo>& lora);

}  // namespace lora
