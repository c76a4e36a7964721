// base.lock.json: the identity of base weights.
//
// One digest per tensor (lora/base/tensor_digest.h) and one root over all of them. The root does not
// depend on the container: .pth, one safetensors file and shards of the same weights have the same
// root. Names that share storage, and the head of a config that ties it, count once under the name
// transformers keeps; the others are listed as aliases and are no part of the root.
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
  std::string dtype;
  std::vector<std::int64_t> shape;
  Digest digest;
};

struct BaseLock {
  Digest root;
  std::map<std::string, LockedTensor> tensors;  ///< by base_name
  std::map<std::string, std::string> aliases;
};

inline constexpr const char* kBaseLockName = "base.lock.json";

/// Root: SHA-256 over "lora.base/1\0", u64 number of tensors, and for each name in byte order the
/// 32 bytes of its digest.
Digest root_of(const std::map<std::string, LockedTensor>& tensors);

/// Hashes every tensor on `threads` threads (0: all); large tensors do not serialise the rest.
BaseLock compute_base_lock(const Checkpoint& checkpoint, int threads, const Sinks& sinks = {});

std::string dump_base_lock(const BaseLock& lock);
BaseLock read_base_lock(const std::filesystem::path& path);

/// Names whose digest differs, that are missing, or that are new; empty when equal.
struct LockDifference {
  std::vector<std::string> changed, missing, added;
  bool is_empty() const { return changed.empty() && missing.empty() && added.empty(); }
};
LockDifference compare(const BaseLock& expected, const BaseLock& actual);

}  // namespace lora
