// Proof that the frozen base is the one the run began with, and that training left it alone.
#pragma once

#include <filesystem>
#include <future>

#include "lora/checkpoint/base_lock.h"

namespace lora::engine {

/// Hashes the base while the rest of the start-up goes on.
class BaseGuard {
 public:
  /// `base` must outlive the guard. `pending`: its digests, where they are on their way already.
  /// `threads`: 0 for all.
  BaseGuard(const Checkpoint& base, std::shared_future<BaseLock> pending, int threads);

  /// Waits for the digests; rethrows what hashing threw.
  const BaseLock& lock();

  /// Throws Error(incompatible) naming the tensors in which the base differs from the one recorded
  /// in `run_dir`.
  void require_same_as(const std::filesystem::path& run_dir);

  /// Hashes again; Error(internal) naming the tensors when a byte has changed since the start.
  void require_unchanged();

 private:
  const Checkpoint& base_;
  int threads_;
  std::shared_future<BaseLock> pending_;
  std::optional<BaseLock> lock_;
};

/// "2 changed (a, b), 1 missing (c)": at most five names a kind.
std::string describe(const LockDifference& difference);

}  // namespace lora::engine
