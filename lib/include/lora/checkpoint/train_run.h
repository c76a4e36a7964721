// The directory that `lora train` writes, as other verbs see it: what was trained, on what, and
// where its adapters are. Written by the engine, readable without it.
//
//   run.json                 effective configuration, base root digest, data digests, tool version
//   base.lock.json           digest of every base tensor (lora/checkpoint/base_lock.h)
//   metrics.jsonl            one line a step or evaluation
//   checkpoints/step-NNNNNN  adapter files + state.safetensors
//   adapter                  the result, once the run has finished
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lora/base/sha256.h"
#include "lora/format/json.h"

namespace lora {

inline constexpr const char* kRunRecordName = "run.json";
inline constexpr const char* kRunSchema = "lora.run/1";

/// A data file as run.json records it.
struct RecordedFile {
  std::filesystem::path path;  ///< as given on the command line
  Digest digest;               ///< SHA-256 of its bytes
};

/// run.json.
struct TrainRun {
  std::filesystem::path path;  ///< the run directory
  std::string tool_version;
  std::string base_source;  ///< --base as given
  Digest base_root;
  std::vector<RecordedFile> data;
  std::vector<RecordedFile> eval_data;
  /// --adapter, when the run continues one; the digest is that of its weights file.
  std::optional<RecordedFile> initial_adapter;
  std::int64_t total_steps = 0;
  int threads = 0;      ///< of LibTorch's operators; equal bytes need equal threads
  JsonObject config;    ///< settings by long flag name with underscores ("batch_size")
  Json adapter_config;  ///< adapter_config.json's document, targets resolved
};

/// True when `path` is a directory that holds run.json.
bool is_run_directory(const std::filesystem::path& path);

/// Throws Error(not_found) when there is no run.json, Error(malformed) naming the member that is
/// missing or of another type.
TrainRun read_train_run(const std::filesystem::path& run_dir);

/// The document of run.json: no timestamps.
Json to_json(const TrainRun& run);

/// Steps of the complete checkpoints, ascending; empty when there are none.
std::vector<std::int64_t> checkpoint_steps(const std::filesystem::path& run_dir);

/// RUN/checkpoints/step-000020.
std::filesystem::path checkpoint_path(const std::filesystem::path& run_dir, std::int64_t step);

/// The adapter directory that stands for the run: RUN/adapter when the run has finished, otherwise
/// the newest checkpoint. Throws Error(not_found) when there is neither.
std::filesystem::path adapter_of_run(const std::filesystem::path& run_dir);

}  // namespace lora
