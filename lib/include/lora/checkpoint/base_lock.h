// base.lock.json: the identity of base weights.
//
// One digest per tensor (lora/base/tensor_digest.h) and one root over all of them. The root does
// not depend on the container: .pth, one safetensors file and shards of the same weights have the
// same root. Names that share storage, and the head of a config that ties it, count once under the
// name transformers keeps; the others are listed as aliases and are no part of the root.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lora/base/sha256.h"
#include "lora/base/sinks.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora {

struct LockedTensor {
  std::string dtype;  ///< spelled as in safetensors
  std::vector<std::int64_t> shape;
  Digest digest;  ///< tensor_digest of base_name and tensor
  friend bool operator==(const LockedTensor&, const LockedTensor&) = default;
};

struct BaseLock {
  Digest root;                                  ///< root_of(tensors)
  std::map<std::string, LockedTensor> tensors;  ///< by base_name
  std::map<std::string, std::string> aliases;   ///< base_name -> name in `tensors`
  friend bool operator==(const BaseLock&, const BaseLock&) = default;
};

inline constexpr const char* kBaseLockName = "base.lock.json";

/// Root: SHA-256 over "lora.base/1\0", u64 number of tensors, and for each name in byte order the
/// 32 bytes of its digest.
Digest root_of(const std::map<std::string, LockedTensor>& tensors);

/// Hashes every tensor on `threads` threads (0: all), largest first so that one large tensor does
/// not leave the others waiting. Pages of mapped safetensors files are dropped behind the hash.
/// `known`: digests of tensors that need not be read again. Progress is reported in bytes; throws
/// Error(interrupted) when cancelled.
BaseLock compute_base_lock(const Checkpoint& checkpoint, int threads, const Sinks& sinks = {},
                           const std::map<std::string, Digest>& known = {});

/// Canonical text: {"schema": "lora.base_lock/1", "root", "tensors": {NAME: {"dtype", "shape",
/// "sha256"}}, "aliases": {NAME: NAME}}, names in byte order, indent 2, final newline.
std::string dump_base_lock(const BaseLock& lock);

/// Strict: unknown or missing fields, a root that is not that of the tensors, and aliases of names
/// that are not there are Error(malformed).
BaseLock read_base_lock(const std::filesystem::path& path);

/// Names whose digest differs, that are missing from `actual`, or that `expected` does not have;
/// empty when equal. Aliases do not count.
struct LockDifference {
  std::vector<std::string> changed, missing, added;
  bool is_empty() const { return changed.empty() && missing.empty() && added.empty(); }
};
LockDifference compare(const BaseLock& expected, const BaseLock& actual);

}  // namespace lora
