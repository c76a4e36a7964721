// The configuration of a repaired adapter: what was read, put right by what the tensors prove.
#pragma once

#include <optional>

#include "lora/adapter/manifest.h"
#include "lora/ops/repair.h"
#include "ops/repair_config_text.h"
#include "ops/repair_names.h"

namespace lora {

/// Makes a lost configuration, or brings a readable one into agreement with `names.tensors`: ranks,
/// targets, switches, patterns that overlap or speak of renamed modules, and the strength as the
/// manifest, `.alpha` scalars or the options give it. Every difference is a change in `report`.
/// Throws Error(usage) for what must be given.
AdapterConfig repair_config(const RepairConfig& read, const RepairedNames& names,
                            const std::optional<Manifest>& manifest, const RepairOptions& options,
                            RepairReport& report);

}  // namespace lora
