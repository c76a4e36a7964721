#include "ops/extract/work_space.h"

#include <atomic>
#include <thread>

#include "lora/base/parallel.h"
#include "support/testing.h"

using namespace lora;
using extraction::WorkSpace;

TEST_CASE("modules side by side stay within their memory, and one too large works alone") {
  constexpr int kThreads = 8;
  constexpr std::int64_t kLimit = 100;
  WorkSpace space(kLimit);
  std::atomic<std::int64_t> used{0}, working{0};
  std::atomic<bool> is_over{false};
  const auto work = [&](std::int64_t more) {
    const std::int64_t all = used += more, workers = ++working;
    if (all > kLimit && workers > 1) is_over = true;
    std::this_thread::yield();
    --working;
  };
  parallel_for(400, kThreads, [&](std::size_t i) {
    const std::int64_t first = 1 + static_cast<std::int64_t>(i * 37 % 60);
    const std::int64_t wider = first + static_cast<std::int64_t>(i * 53 % 130);  // up to 189
    WorkSpace::Share share(space);
    share.grow(static_cast<std::uint64_t>(first));
    work(first);
    share.grow(static_cast<std::uint64_t>(wider), static_cast<std::uint64_t>(first));
    work(wider - first);
    used -= wider;
  });
  REQUIRE_FALSE(is_over);
  REQUIRE(used == 0);
}
