// How strongly each module of a repaired adapter is applied.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "lora/adapter/manifest.h"
#include "lora/ops/repair.h"
#include "ops/repair_config_text.h"
#include "ops/repair_names.h"

namespace lora {

/// Sets lora_alpha, alpha_pattern and use_rslora of `config` so that every module of `ranks` has
/// its proven strength: that of the manifest, else of the file's `.alpha` scalars, else of a
/// configuration that was read (looked up under the paths it was written for), else the options'.
/// Throws Error(usage) when none of these knows it, when two contradict each other, or when an
/// option is given that is not needed.
void repair_strength(AdapterConfig& config, const RepairConfig& read, const RepairedNames& names,
                     const std::map<std::string, std::int64_t>& ranks,
                     const std::optional<Manifest>& manifest, const RepairOptions& options,
                     RepairReport& report);

/// True when a module is selected by keys of `pattern` with different values, so that the order of
/// the keys, which no file keeps, decides.
bool has_overlap(const NumberPattern& pattern, const std::map<std::string, std::int64_t>& ranks);

/// Text of a pattern in changes.
std::string pattern_text(const NumberPattern& pattern);

}  // namespace lora
