// unmerge: the base again, from a merged checkpoint and the adapters that are in it.
//
// The same kernels subtract what they added. A rounded sum does not always tell its terms: the
// result is called exact only where the digests of all restored tensors are those that are recorded
// of the base.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lora/checkpoint/base_lock.h"
#include "lora/ops/merge.h"

namespace lora {

struct UnmergeOptions {
  const Checkpoint* merged = nullptr;
  std::vector<WeightedAdapter> adapters;  ///< with the weights of the merge
  std::filesystem::path output;
  std::optional<BaseLock> base_lock;  ///< of the base, beside what merge and adapters record
  std::optional<DType> dtype;         ///< the base's, where the merge changed it
  bool allow_inexact = false;         ///< write what is not proven to be the base
  std::uint64_t max_memory = 256'000'000;
  bool force = false;
  bool dry_run = false;
  int threads = 0;
  FileSystem* file_system = nullptr;
};

/// One tensor from which an update was taken.
struct RestoredTensor {
  std::string base_name;
  std::int64_t elements = 0;
  std::optional<bool> is_equal;  ///< its digest is the recorded one; absent: none is recorded
  /// Bound of what rounding may have changed, in steps of the restored value; 1 is exact but for
  /// ties. Absent in a dry run.
  double worst_ulps = 0;
  std::int64_t uncertain = 0;  ///< elements whose bound is above one
  bool is_copy = false;        ///< not subtracted: an adapter brought the base's weight along
  /// Of a copy without proof: whether it and its updates give what the merge holds, as far as the
  /// ways to merge that `verify --merged` knows.
  std::optional<bool> gives_merge;
};

struct UnmergeReport {
  std::filesystem::path output;
  std::vector<RestoredTensor> tensors;
  bool is_exact = false;    ///< proven by digests
  std::string recorded_in;  ///< what the proof is read from; empty: nothing records the base
  double worst_ulps = 0;    ///< over all tensors
  std::int64_t uncertain = 0;
  std::uint64_t weight_bytes = 0;
  std::vector<MergeFile> files;
  std::vector<std::string> notes;
  std::optional<Digest> root;
};

/// Two names of one matrix that the merge untied are tied again where it changed one of the two,
/// and a weight that an adapter brought along besides adapting it (is_base_copy) is taken from
/// there. Throws as merge does; Error(unsupported) for what an adapter replaced whole (saved
/// modules, biases, token rows) and for DoRA, all by name; Error(incompatible) when lora_merge.json
/// records other adapters or weights, and, without allow_inexact, when the result is not proven.
/// Nothing is left behind by a failure.
UnmergeReport unmerge(const UnmergeOptions& options, const Sinks& sinks = {});

}  // namespace lora
