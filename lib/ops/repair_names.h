// Names of a damaged adapter's tensors made clean peft_keys.
#pragma once

#include <map>
#include <string>

#include "lora/adapter/config.h"
#include "lora/ops/repair.h"

namespace lora {

struct RepairedNames {
  TensorMap tensors;                     ///< by clean peft_key
  std::map<std::string, double> alphas;  ///< by module_path: `<module>.alpha` scalars of the file
  bool is_moved = false;                 ///< modules were renamed, so other base tensors are meant
  /// Where modules were renamed: their present path -> the one the file and its configuration use.
  std::map<std::string, std::string> earlier_paths;
  /// Likewise for tensors, both clean.
  std::map<std::string, std::string> earlier_keys;

  const std::string& earlier_path(const std::string& path) const;
  const std::string& earlier_key(const std::string& key) const;
};

/// Takes off wrappers, adapter names and foreign fronts, adds the prefix of PEFT, applies
/// `options.map`, and finds the modules of a given base. `config` (null: lost) says which redundant
/// twins PEFT wrote itself. Every kind of change is an entry of `report.changes`, every renamed
/// tensor one of `report.renamed`. Throws as repair does.
RepairedNames repair_names(const TensorMap& tensors, const RepairOptions& options,
                           const AdapterConfig* config, RepairReport& report);

}  // namespace lora
