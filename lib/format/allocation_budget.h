// What reading one file may take from the heap.
//
// A few bytes of file can ask for any number of objects: members of a dict, views with stride 0,
// tensors without data. Every reader of such a file pays here before it allocates, so that no file
// costs more than 40 MiB and its own size; what the readers' callers keep and the buffers of
// libraries fit into as much again (docs/formats.md).
#pragma once

#include <cstdint>
#include <limits>

namespace lora {

class AllocationBudget {
 public:
  static constexpr std::uint64_t kBase = std::uint64_t{40} << 20;

  explicit AllocationBudget(std::uint64_t file_size, std::uint64_t base = kBase)
      : left_(file_size > std::numeric_limits<std::uint64_t>::max() - base
                  ? std::numeric_limits<std::uint64_t>::max()
                  : file_size + base) {}

  /// False when fewer than `bytes` are left; nothing is taken then.
  bool spend(std::uint64_t bytes) {
    if (bytes > left_) return false;
    left_ -= bytes;
    return true;
  }
  void give_back(std::uint64_t bytes) { left_ += bytes; }

 private:
  std::uint64_t left_;
};

}  // namespace lora
