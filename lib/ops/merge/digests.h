// Digests of a merge's tensors, taken in the pass that reads and writes them.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lora/base/tensor_digest.h"
#include "lora/checkpoint/base_lock.h"
#include "ops/background.h"
#include "ops/merge/writer.h"

namespace lora::merging {

/// Threads beside the pass hash what it makes, batch by batch, and what lies in the base's file:
/// tensors that are copied, which they check to be finite, and those that updates start from.
class PassDigests {
 public:
  /// `with_base`: the base's digests are wanted too. `base` and `form` must outlive the object.
  PassDigests(const Checkpoint& base, const Checkpoint& form, bool with_base,
              const WriterOptions& options);
  ~PassDigests();
  PassDigests(const PassDigests&) = delete;
  PassDigests& operator=(const PassDigests&) = delete;

  /// Lets the streams of a target pass by; `finish` when all of its bytes have.
  void listen(const replay::Target& target, Streams& streams);
  void finish(const replay::Target& target);
  /// Waits for the threads. Throws Error(malformed) for a copied tensor that holds NaN or infinity.
  void settle();

  /// The lock of the checkpoint that was written, opened again: its names, dtypes and shapes are
  /// those of the files, the digests those of the bytes handed over. Throws Error(internal) when
  /// the files do not hold what was handed over, and Error(interrupted).
  BaseLock merged(const Checkpoint& written) const;
  /// The base's. Throws Error(interrupted).
  BaseLock base() const;

 private:
  /// Whether the target starts from the base's tensor of the same name.
  bool is_of_base(const replay::Target& target) const;
  Digest digest_of(const replay::Target& target, bool is_checked) const;

  const Checkpoint& base_;
  const Checkpoint& form_;
  bool with_base_;
  const WriterOptions& options_;
  std::shared_ptr<TensorHash> hash_;  ///< of the tensor that is being made
  std::map<std::string, Digest> merged_digests_, base_digests_;
  std::vector<std::string> copied_;  ///< digests that base and merge share
  Background files_, batches_;       ///< last: their threads use the rest
};

}  // namespace lora::merging
