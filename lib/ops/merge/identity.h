// Whether the base of a merge is the one that its adapters record.
//
// The base is read once. Unless base.lock.json vouches for it, its digests are known when the merge
// is made, before it is published; a first tensor tells most mistakes before.
#pragma once

#include <optional>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/adapter/manifest.h"
#include "lora/base/sinks.h"
#include "lora/checkpoint/base_lock.h"

namespace lora::merging {

class BaseIdentity {
 public:
  /// `base` must outlive the object.
  explicit BaseIdentity(const Checkpoint& base) : base_(base) {}

  /// Reads what the adapters record; they must outlive the object. Without this call any base will
  /// do.
  void expect(const std::vector<const Adapter*>& adapters);

  /// These throw Error(incompatible) when an adapter records another base.
  /// From base.lock.json, else from the smallest of the recorded tensors alone.
  void look(int threads, const Sinks& sinks);
  /// From base.lock.json, else by hashing the base.
  void settle(int threads, const Sinks& sinks);
  void take(const BaseLock& lock);

  /// nullopt until the whole base is known.
  const std::optional<Digest>& root() const { return root_; }

 private:
  struct Expected {
    const Adapter* adapter;
    Manifest manifest;
  };
  bool has_first_tensor(const Manifest& manifest) const;

  const Checkpoint& base_;
  std::vector<Expected> expected_;
  std::optional<Digest> root_;
};

}  // namespace lora::merging
