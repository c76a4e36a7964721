// A damaged adapter_config.json read as far as it can be.
#pragma once

#include <optional>
#include <string>

#include "lora/ops/repair.h"
#include "ops/repair_source.h"

namespace lora {

struct RepairConfig {
  std::optional<AdapterConfig> config;  ///< absent: lost, to be made from the tensors
  std::string lost_because;             ///< "is missing", "is empty", ...
  bool has_alpha = false;               ///< lora_alpha was given
  std::string unusable_rank;            ///< `r` as it stands there, where config->rank is kNoRank
};

/// Values in another spelling ("8" for 8), members of early releases and members given twice are
/// put right, each a change in `report`. Violations of members that the tensors can tell are left
/// for them to settle. Throws Error(usage) for violations that nobody but a person can settle.
RepairConfig read_repair_config(const RepairOptions& options, const RepairSource& source,
                                RepairReport& report);

}  // namespace lora
