// Which modules an adapter configuration selects, resolved exactly as PEFT 0.21.2 does.
#pragma once

#include <string>
#include <vector>

#include "lora/adapter/config.h"
#include "lora/base/module.h"

namespace lora {

struct ResolvedTargets {
  std::vector<ModuleInfo> lora;         ///< modules that get LoRA layers, in model order
  std::vector<ModuleInfo> saved;        ///< outermost modules replaced by full copies
  std::vector<std::string> dead_targets;      ///< list entries that matched nothing
  std::vector<std::string> dead_saved;        ///< modules_to_save entries that matched nothing
  std::vector<std::string> dead_patterns;     ///< rank/alpha pattern keys that matched no target
};

/// PEFT's default target_modules for a transformers model_type (llama: q_proj, v_proj); empty when
/// PEFT has none.
std::vector<std::string> default_targets(const std::string& model_type);

/// Matches configuration against the modules of a model. `is_transformers` selects the treatment of
/// "all-linear" (the output head is left out there, and taken in other models). Throws
/// Error(incompatible) when nothing matches, listing the leaf module names that exist;
/// Error(usage) for a regular expression that does not compile.
ResolvedTargets resolve_targets(const AdapterConfig& config, const ModuleList& modules,
                                bool is_transformers);

/// Replaces "all-linear" by the full names it stands for, as PEFT stores it.
void expand_all_linear(AdapterConfig& config, const ModuleList& modules, bool is_transformers);

}  // namespace lora
