// inspect: what is in this file? Adapters, checkpoints and single tensor files, without a base.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/adapter/manifest.h"
#include "lora/base/tensor.h"
#include "lora/ops/verify.h"

namespace lora {

struct InspectOptions {
  std::filesystem::path path;           ///< as given; the command has resolved run directories
  std::optional<AdapterConfig> config;  ///< for a weights file alone
  bool with_statistics = true;          ///< norms and ranks of the updates
  int threads = 0;
};

struct DTypeShare {
  std::int64_t tensors = 0, elements = 0;
  std::uint64_t bytes = 0;
};

/// Several modules of one kind, told apart by the last component of their path.
struct ModuleGroup {
  std::string name;  ///< "q_proj"
  std::int64_t count = 0;
  std::vector<std::int64_t> ranks;  ///< distinct, ascending
  std::vector<double> scalings;     ///< distinct, ascending
  std::int64_t parameters = 0;
  double mean_norm = 0, largest_norm = 0;  ///< of the updates
  double mean_effective_rank = 0;
};

struct InspectReport {
  std::filesystem::path path;
  std::string kind;  ///< "adapter", "checkpoint", "tensors"
  std::string
      container;  ///< "safetensors", "pickle (zip)", "pickle (legacy)", "sharded safetensors"
  std::map<std::string, DTypeShare> dtypes;
  std::int64_t tensors = 0, elements = 0;
  std::uint64_t bytes = 0;
  std::string model_type;  ///< checkpoints with a config
  std::optional<std::string>
      base_root;  ///< from base.lock.json or lora_manifest.json, not computed
  std::optional<Adapter> adapter;
  std::optional<Manifest> manifest;
  /// Of the adapter's manifest; of a checkpoint that lora merge wrote, that one step.
  JsonArray history;
  std::vector<ModuleFigures> modules;                  ///< adapters, with statistics
  std::vector<ModuleGroup> groups;                     ///< adapters
  std::vector<std::pair<std::string, Tensor>> listed;  ///< every tensor, in name order
  std::map<std::string, std::string> aliases;          ///< checkpoints: names sharing bytes
  std::vector<std::string> notes;
};

/// Throws Error(not_found | malformed | unsupported) when the path holds nothing it knows.
InspectReport inspect(const InspectOptions& options);

}  // namespace lora
