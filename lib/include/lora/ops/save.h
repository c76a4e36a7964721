// save: unwrap whatever holds LoRA weights and write only the adapter.
//
// A source is an adapter directory (a run's adapter or checkpoint) or any state dict with LoRA
// weights: PEFT's in-memory names, plain names, DDP / torch.compile / FSDP wrappers, mixed with
// base weights. Ranks, targets and saved modules come from the keys. A state dict holds no alpha:
// it must come from a configuration or from flags, and is never guessed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/atomic_write.h"
#include "lora/base/sinks.h"

namespace lora {

struct Checkpoint;
class Engine;

/// What a state dict cannot tell about itself.
struct SaveFlags {
  std::optional<double> alpha;
  std::optional<bool> use_rslora;
  std::optional<std::string> task;       ///< PEFT's task_type ("CAUSAL_LM"), or "none"
  std::optional<std::string> base_name;  ///< recorded as base_model_name_or_path
};

struct SaveOptions {
  std::filesystem::path source;
  std::filesystem::path output;
  std::optional<AdapterConfig> config;  ///< --adapter-config
  /// Configurations for single adapters of a state dict, by adapter name; they win over `config`.
  std::map<std::string, AdapterConfig> configs;
  /// Which of several adapters; the only one when absent.
  std::optional<std::string> adapter_name;
  std::optional<DType> dtype;  ///< float dtype of the output; absent: every tensor keeps its own
  SaveFlags flags;
  const Checkpoint* base = nullptr;  ///< checks fit, records identity
  /// Records outputs when there is a base; may be empty (no engine, no record).
  std::function<Engine&()> engine;
  bool bare = false;        ///< no lora_manifest.json, no probe.safetensors
  bool model_card = false;  ///< README.md as PEFT adds it
  bool dry_run = false;     ///< all checks, nothing written
  WriteOptions write;
  int threads = 0;
  Sinks sinks;
};

struct SaveReport {
  std::filesystem::path output;
  std::string adapter_name;           ///< in the source; "default" where it has no names
  Adapter adapter;                    ///< as written
  std::vector<std::string> left_out;  ///< names of the source that are no part of the adapter
  std::uint64_t left_out_bytes = 0;
  std::vector<std::string> unwrapped;  ///< wrapper components removed ("_orig_mod", ...)
  std::vector<std::string> notes;      ///< what was assumed or could not be recorded
  std::uint64_t bytes = 0;             ///< size of adapter_model.safetensors' tensors
  bool has_probe = false;
  std::optional<std::string> base_root;
};

/// A source is one adapter, a state dict with one or several, or a directory as PEFT lays several
/// out ("default" in itself, each other one in a sub-directory of its name).
///
/// Throws Error(usage) when alpha, rsLoRA or task are nowhere given, listing all that are missing;
/// Error(malformed) for a source without LoRA weights, with unpaired, empty or non-finite tensors;
/// Error(incompatible) when configuration, tensors and base disagree, or when a value is beyond the
/// range of `dtype`; Error(usage) for several adapters without `adapter_name`, listing them.
SaveReport save(const SaveOptions& options);

/// Every adapter of the source: "default" directly into the output, each other one into a
/// sub-directory of its name. The whole output appears at once. `adapter_name` is not looked at.
std::vector<SaveReport> save_all(const SaveOptions& options);

}  // namespace lora
