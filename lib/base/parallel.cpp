#include "lora/base/parallel.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <latch>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace lora {

int available_threads() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (::sched_getaffinity(0, sizeof(mask), &mask) == 0) return std::max(1, CPU_COUNT(&mask));
  return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

namespace {

// Where threads begin. Left to the scheduler, a new one often waits on the processor that its
// creator keeps busy, and is moved milliseconds later, when a short piece of work is over.
class Elsewhere {
 public:
  Elsewhere() {
    CPU_ZERO(&all_);
    CPU_ZERO(&others_);
    if (::sched_getaffinity(0, sizeof(all_), &all_) != 0) return;
    const int here = ::sched_getcpu();
    others_ = all_;
    if (here >= 0) CPU_CLR(static_cast<std::size_t>(here), &others_);
  }

  /// Moves a thread that has just been made to another processor.
  void place(std::jthread& thread) const {
    if (CPU_COUNT(&others_) > 0)
      ::pthread_setaffinity_np(thread.native_handle(), sizeof(others_), &others_);
  }

  /// Lets this thread, which was placed, go where it likes.
  void release() const {
    if (CPU_COUNT(&others_) > 0) ::sched_setaffinity(0, sizeof(all_), &all_);
  }

 private:
  cpu_set_t all_, others_;
};

}  // namespace

void parallel_for(std::size_t count, int threads, const std::function<void(std::size_t)>& body) {
  if (threads <= 0) threads = available_threads();
  const std::size_t workers = std::min<std::size_t>(count, static_cast<std::size_t>(threads));
  std::atomic<std::size_t> next{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::exception_ptr first_failure;
  std::size_t first_failed_index = count;

  const auto work = [&] {
    while (!stop.load(std::memory_order_relaxed)) {
      const std::size_t index = next.fetch_add(1);
      if (index >= count) return;
      try {
        body(index);
      } catch (...) {
        const std::lock_guard lock(mutex);
        stop = true;
        if (index < first_failed_index) {
          first_failed_index = index;
          first_failure = std::current_exception();
        }
      }
    }
  };
  {
    const Elsewhere elsewhere;
    std::latch placed(1);
    std::vector<std::jthread> pool;
    try {
      for (std::size_t i = 1; i < workers; ++i)
        elsewhere.place(pool.emplace_back([&] {
          placed.wait();
          elsewhere.release();
          work();
        }));
    } catch (const std::system_error&) {
      // The system gives no more threads: those already here, at least this one, do the work.
    }
    placed.count_down();
    work();
  }
  if (first_failure) std::rethrow_exception(first_failure);
}

}  // namespace lora
