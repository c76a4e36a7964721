#include "ops/extract/work_space.h"

#include <malloc.h>

namespace lora::extraction {

WorkSpace::Share::~Share() {
  if (held_ == 0) return;
  // The allocator keeps what a thread frees, and the others of the space count on it.
  if (is_wide_) ::malloc_trim(0);
  const std::lock_guard lock(space_.mutex_);
  space_.used_ -= held_;
  --space_.working_;
  space_.changed_.notify_all();
}

void WorkSpace::Share::grow(std::uint64_t bytes, std::uint64_t kept) {
  if (bytes <= held_) return;
  is_wide_ = held_ != 0;
  if (is_wide_) ::malloc_trim(0);
  std::unique_lock lock(space_.mutex_);
  if (is_wide_) {
    space_.used_ -= held_ - kept;
    --space_.working_;
    space_.changed_.notify_all();
  }
  space_.changed_.wait(
      lock, [&] { return space_.working_ == 0 || space_.used_ - kept + bytes <= space_.limit_; });
  space_.used_ += bytes - kept;
  ++space_.working_;
  held_ = bytes;
}

}  // namespace lora::extraction
