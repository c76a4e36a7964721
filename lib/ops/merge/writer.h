// The merged values of one tensor, front to back, in bounded memory.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "lora/base/mapped_file.h"
#include "lora/base/sinks.h"
#include "ops/replay/target.h"

namespace lora::merging {

using ByteSink = std::function<void(std::span<const std::byte>)>;

/// Merged bytes that stay as they are for as long as `keep` lives.
struct Batch {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> keep;
};

/// Who gets the bytes of a merged tensor, front to back and all of them.
struct Streams {
  ByteSink out;
  /// The same bytes as something to keep, in the same order; may be empty. Not for copies, whose
  /// bytes are the base's own.
  std::function<void(Batch)> beside = nullptr;
};

/// Memory of a few batches, used again and again: fresh pages cost as much as the sums.
class Buffers {
 public:
  Buffers();
  /// Uninitialised. Waits while as many are in use as there may be.
  std::shared_ptr<std::byte> take(std::size_t bytes);
  /// Who waits calls this first, again and again until it is false.
  void while_waiting(std::function<bool()> work) const;

 private:
  struct Pool;
  std::shared_ptr<Pool> pool_;
};

struct WriterOptions {
  bool is_safe_merge = false;
  std::uint64_t max_memory = 0;
  int threads = 0;
  std::vector<std::shared_ptr<const MappedFile>> mappings;  ///< pages to drop behind the pass
  Sinks sinks;
  Buffers buffers = {};
};

/// Why the kernels cannot write this target; empty when they can.
std::string why_not_written(const replay::Target& target);

/// Throws Error(resources) when the factors of a target alone take more than max_memory.
void require_memory(const replay::Target& target, const WriterOptions& options);

/// Hands out all bytes of the merged tensor and returns what became of the update. The bytes do not
/// depend on the number of threads. Throws Error(malformed) that names the tensor when a value is
/// not finite (copies are handed out as they are), and Error(interrupted).
replay::Sums write_target(const replay::Target& target, const WriterOptions& options,
                          const Streams& streams);

/// Seconds that all targets take to be made and hashed, from some of each sort: those that are
/// computed and those that are copied.
double estimate_seconds(const std::vector<replay::Target>& targets, const WriterOptions& options);

}  // namespace lora::merging
