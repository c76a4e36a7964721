// Digests of the two checkpoints, made while factors are.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "lora/base/sinks.h"
#include "lora/checkpoint/base_lock.h"
#include "ops/extract/survey.h"

namespace lora::extraction {

/// A side beside which base.lock.json lies is not hashed, and what both hold alike is hashed once.
class InputDigests {
 public:
  InputDigests(const Checkpoint& base, const Checkpoint& tuned, const Survey& survey);

  /// Tensors that are no site's, the largest first; each may be hashed on a thread of its own.
  std::size_t others() const { return others_.size(); }
  void hash_other(std::size_t index, const Sinks& sinks);
  /// Both tensors of a site; the caches still hold them if it was read just now.
  void hash_site(const Site& site);

  BaseLock base_lock(int threads, const Sinks& sinks) const;
  Digest tuned_root(const BaseLock& base, int threads, const Sinks& sinks) const;

 private:
  struct Input {
    const Checkpoint& checkpoint;
    bool is_hashed;
    std::map<std::string, Digest> digests;
  };
  struct Other {
    Input* input;
    const TensorMap::value_type* entry;
  };

  void add(Input& input, const std::string& name, const Digest& digest);

  Input base_, tuned_;
  std::set<std::string> alike_;
  std::vector<Other> others_;
  std::mutex mutex_;
};

}  // namespace lora::extraction
