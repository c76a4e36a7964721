// Which base this is: digests computed from its bytes, and what its base.lock.json vouches for.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/manifest.h"
#include "lora/checkpoint/base_lock.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora {

struct BaseIdentity {
  /// Digests computed now, by base_name: of every tensor, or of those that the adapter changes.
  std::map<std::string, Digest> hashed;
  bool is_whole = false;  ///< every tensor was hashed
  bool has_lock = false;  ///< a base.lock.json lies beside the weights
  /// Tensors that contradict base.lock.json: "NAME", "NAME (missing)", "NAME (added)". Names,
  /// dtypes and shapes are always compared, bytes only where they were hashed.
  std::vector<std::string> against_lock;
  /// The root of the base: of all bytes when `is_whole`; otherwise that of base.lock.json, as far
  /// as nothing contradicts it. Absent when neither is known.
  std::optional<Digest> root;
};

/// Hashes as little as proves something: with a base.lock.json the tensors that the manifest says
/// the adapter changes, since the lock vouches for the others; without one every tensor, which is
/// the only proof; nothing when the adapter records no base. `full` hashes every tensor in any
/// case. Throws as read_base_lock does, and Error(interrupted).
BaseIdentity identify_base(const Checkpoint& base, const std::optional<Manifest>& manifest,
                           bool full, int threads, const Sinks& sinks);

}  // namespace lora
