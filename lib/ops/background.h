// Work on threads beside the one that goes on.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace lora {

class Background {
 public:
  /// Jobs begin in their order. Without threads, `add` does the work. `helps`: whoever waits does
  /// some of it too, so that a job may begin before the one in front of it is done.
  Background(int threads, bool helps);
  /// Drops what has not begun.
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  void add(std::function<void()> job);
  /// Does one job that has not begun; false when there is none.
  bool help();
  /// Waits until everything is done; rethrows the first failure.
  void settle();

 private:
  void run_one(std::unique_lock<std::mutex>& lock);
  void work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  std::size_t running_ = 0;
  bool helps_ = false, is_closing_ = false;
  std::exception_ptr failure_;
  std::vector<std::jthread> threads_;
};

}  // namespace lora
