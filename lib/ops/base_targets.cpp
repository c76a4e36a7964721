#include "ops/base_targets.h"

namespace lora {

void settle_with(Adapter& adapter, const Checkpoint& base, const ModuleList& stored) {
  settle_parameters(adapter, stored, base.config ? base.config->model_type : std::string());
}

ResolvedTargets targets_in(const AdapterConfig& config, const Checkpoint& base,
                           const ModuleList& stored) {
  const bool is_transformers = base.config && base.config->is_transformers();
  const Json* parameters = config.other.find("target_parameters");
  const bool has_parameters = parameters != nullptr && !parameters->is_null();
  if (!std::holds_alternative<std::monostate>(config.target_modules) || has_parameters ||
      !base.config)
    return resolve_targets(config, stored, is_transformers);
  AdapterConfig with_targets = config;
  with_targets.target_modules = default_selector(base.config->model_type);
  return resolve_targets(with_targets, stored, is_transformers);
}

}  // namespace lora
