// repair: give a damaged adapter the names, configuration and container that PEFT loads.
//
// Only what is certain is changed, and every change is in the report with its reason. What cannot
// be known (alpha, a module with two possible places) is asked for, what is lost (NaN, empty or
// missing tensors) is refused. The result has passed verify before it appears.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/atomic_write.h"
#include "lora/base/sinks.h"
#include "lora/ops/finding.h"

namespace lora {

struct Checkpoint;

struct RepairOptions {
  std::filesystem::path adapter;  ///< adapter directory, damaged or not, or a weights file
  std::filesystem::path output;
  const Checkpoint* base = nullptr;     ///< decides about module names and copies of base weights
  std::optional<AdapterConfig> config;  ///< replaces adapter_config.json
  /// Runs of components in module paths and what becomes of them ("language_model" -> ""), in
  /// order; in each path the first occurrence.
  std::vector<std::pair<std::string, std::string>> map;
  std::optional<std::string> prefix;  ///< in front of the names, taken off
  std::optional<double> alpha;        ///< where the source has none
  std::optional<bool> use_rslora;     ///< likewise
  std::optional<std::string> task;    ///< PEFT's task_type for a configuration that is lost
  std::optional<DType> dtype;         ///< float dtype of the output; absent: kept
  bool write_unchanged = false;       ///< write the output also when there is nothing to repair
  bool dry_run = false;               ///< everything but the final rename
  WriteOptions write;
  int threads = 0;
  Sinks sinks;
};

struct RepairChange {
  std::string what;  ///< "file", "names", "tensor", "configuration", "dtype"
  std::string from;  ///< as found; short where it stands for many names
  std::string to;    ///< as written; "left out" for what is dropped
  std::string why;   ///< why this is certain
};

struct RepairReport {
  std::filesystem::path output;
  bool is_written = false;
  std::vector<RepairChange> changes;  ///< empty: nothing to repair
  /// Every tensor whose name changed: as in the file -> as written.
  std::vector<std::pair<std::string, std::string>> renamed;
  std::vector<std::string> notes;        ///< what a person should know beside the changes
  std::vector<std::string> carried;      ///< other files of the source that were copied
  std::vector<std::string> left_behind;  ///< and those that were not
  Adapter adapter;                       ///< the result
  std::uint64_t bytes = 0;               ///< of the result's tensors
  Findings findings;                     ///< of verify on the result; none is an error
};

/// Throws Error(usage) when something must be given (alpha, one of several readings of a prefix);
/// Error(malformed) for what no repair can bring back: damaged files, empty, non-finite or missing
/// tensors, two tensors for one name, base weights nobody declared, and whenever the result would
/// not pass verify; Error(incompatible) when modules have no place, or several, in the base.
RepairReport repair(const RepairOptions& options);

}  // namespace lora
