// What an adapter's configuration selects in one base, as verify, load and save all see it.
#pragma once

#include "lora/adapter/adapter.h"
#include "lora/adapter/targets.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora {

/// Settles with this base what the adapter alone leaves open about bare parameters
/// (settle_parameters). `stored` are the modules of the base (list_modules).
void settle_with(Adapter& adapter, const Checkpoint& base, const ModuleList& stored);

/// resolve_targets with the selector of the base's family where the configuration has neither
/// target_modules nor target_parameters. Throws as resolve_targets does.
ResolvedTargets targets_in(const AdapterConfig& config, const Checkpoint& base,
                           const ModuleList& stored);

}  // namespace lora
