// merge: base + adapters as a checkpoint of its own, written in one pass over the base.
//
// The arithmetic is that of `verify --merged` (PEFT's merge: D = s * (B . A) in f32, W + D rounded
// into the dtype of the weight), so that what is written can be proven. Where the dtype changes, or
// several adapters change one weight, everything is summed in f32 and rounded once. Weights that no
// adapter changes are copied byte for byte; files, index and configuration stay as they are but for
// what the merge changes: dtypes, the tie of embedding and head, rows of the vocabulary.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/dtype.h"
#include "lora/base/file_system.h"
#include "lora/base/sha256.h"
#include "lora/base/sinks.h"
#include "lora/checkpoint/base_lock.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/ops/adapter_set.h"

namespace lora {

/// One tensor that the merge changes.
struct MergedWeight {
  std::string base_name;
  std::string module_path;  ///< empty for what an adapter replaces
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  bool has_update = false;  ///< LoRA factors are added
  /// Of the intended update (absent in a dry run and where it is zero): share of the elements that
  /// changed, share of its energy in these, cosine of intended and realised change.
  std::optional<double> changed, survived, cosine;
};

struct MergeOptions {
  const Checkpoint* base = nullptr;
  std::vector<WeightedAdapter> adapters;  ///< in the order of application
  std::filesystem::path output;
  std::optional<DType> dtype;  ///< of all float tensors; default: each keeps the base's
  /// Write a torch base (pytorch_model.bin, .pth) as one model.safetensors; default: its own files.
  bool as_safetensors = false;
  /// Two roundings, as PEFT's safe_merge: each update is rounded before it is added.
  bool is_safe_merge = false;
  std::uint64_t max_memory = 256'000'000;  ///< bytes of own pages, mapped files not counted
  bool any_base = false;                   ///< merge although an adapter records another base
  bool force = false;                      ///< replace an existing output
  bool dry_run = false;                    ///< check and plan, write nothing
  int threads = 0;                         ///< 0: all
  FileSystem* file_system = nullptr;       ///< null: the real one
  /// Parameters that have their final values in the base: what adapters do to them is left out.
  std::set<std::string> settled;
  /// Aliases of the base that are tensors of their own in its files and config.json, and are not
  /// written any more.
  std::map<std::string, std::string> tied;
  /// Looks at what is written before it appears; what it throws leaves nothing. Where there is one,
  /// the result is no merge to record, and gets no lora_merge.json.
  std::function<void(const Checkpoint& written, const BaseLock& lock,
                     const std::vector<MergedWeight>& changed)>
      approve;
};

struct MergeFile {
  std::string name;
  std::uint64_t bytes = 0;  ///< 0 in a dry run where the size is only known once written
};

struct MergeReport {
  std::filesystem::path output;
  std::vector<MergedWeight> weights;  ///< sorted by base_name
  std::int64_t copied = 0;            ///< tensors that stay as they are
  std::uint64_t weight_bytes = 0;     ///< of all tensors written
  std::vector<MergeFile> files;
  std::vector<std::string> untied;  ///< names that are tensors of their own now
  std::vector<std::string> notes;   ///< what must be said aloud
  /// Over all updated tensors; absent in a dry run and where nothing is added.
  std::optional<double> changed, survived, cosine;
  bool is_lossy = false;  ///< is_lossy_merge() of these figures
  /// Of a dry run: reading, arithmetic and digests, measured on some of the tensors; what the disk
  /// takes to write weight_bytes comes on top.
  std::optional<double> estimated_seconds;
  std::optional<Digest> root;  ///< of what was written; absent in a dry run
};

/// Throws Error(incompatible) when an adapter does not fit the base, contradicts another one or
/// records another base; Error(unsupported) for quantised bases and for updates that have no merge,
/// all of them by name; Error(malformed) for values that are not finite; Error(output) when the
/// output exists (the message says whether it is this merge) or cannot be written; Error(usage)
/// when the output is or holds an input. Nothing is left behind by a failure.
MergeReport merge(const MergeOptions& options, const Sinks& sinks = {});

}  // namespace lora
