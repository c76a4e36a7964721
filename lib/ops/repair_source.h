// A damaged adapter as it lies on disk, before anything is interpreted.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/manifest.h"
#include "lora/ops/repair.h"

namespace lora {

struct RepairSource {
  std::filesystem::path folder;            ///< of configuration and companions
  std::filesystem::path weights;           ///< the file the tensors came from
  TensorMap tensors;                       ///< named as in the file
  std::optional<std::string> config_text;  ///< adapter_config.json; absent or empty: lost
  std::string config_is;                   ///< what lies there instead of a file: "a directory"
  std::optional<Manifest> manifest;
  std::vector<std::string> companions;  ///< file names that belong to the adapter
};

/// Finds and reads the weights. Empty files and a second container of the same adapter are left
/// out, other containers than safetensors rewritten, and each of that is a change in `report`.
RepairSource read_repair_source(const std::filesystem::path& path, RepairReport& report);

}  // namespace lora
