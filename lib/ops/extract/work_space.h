// Memory that modules worked on side by side share.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace lora::extraction {

/// Whoever wants more bytes than are left waits until others are done. One always works, however
/// little is allowed.
class WorkSpace {
 public:
  explicit WorkSpace(std::uint64_t limit) : limit_(limit) {}

  /// What one module works in; given back with the object.
  class Share {
   public:
    explicit Share(WorkSpace& space) : space_(space) {}
    ~Share();
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;

    /// Makes the share at least `bytes`, of which `kept` are in use while it waits for the others.
    void grow(std::uint64_t bytes, std::uint64_t kept = 0);

   private:
    WorkSpace& space_;
    std::uint64_t held_ = 0;
    bool is_wide_ = false;  ///< has grown beyond what it began with
  };

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t limit_, used_ = 0;
  int working_ = 0;  ///< shares that do not wait
};

}  // namespace lora::extraction
