#include "lora/base/parallel.h"

#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "support/testing.h"

namespace lora {

TEST_CASE("parallel_for calls every index once on any number of threads") {
  REQUIRE(available_threads() >= 1);
  for (const int threads : {0, 1, 4, 64}) {
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{1000}}) {
      std::vector<std::atomic<int>> calls(count);
      parallel_for(count, threads, [&](std::size_t i) { ++calls[i]; });
      for (const auto& n : calls) REQUIRE(n == 1);
    }
  }
}

TEST_CASE("parallel_for gives the same results on 1 and 4 threads") {
  const auto results = [](int threads) {
    std::vector<double> values(500);
    parallel_for(values.size(), threads, [&](std::size_t i) {
      for (std::size_t k = 1; k <= 100 + i; ++k) values[i] += 1.0 / static_cast<double>(k * k + i);
    });
    return values;
  };
  REQUIRE(results(1) == results(4));
}

TEST_CASE("parallel_for uses no more threads than asked") {
  for (const int threads : {1, 3}) {
    std::atomic<int> running{0};
    std::atomic<int> most{0};
    parallel_for(50, threads, [&](std::size_t) {
      const int now = ++running;
      int seen = most;
      while (now > seen && !most.compare_exchange_weak(seen, now)) {
      }
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      --running;
    });
    REQUIRE(most <= threads);
  }
}

TEST_CASE("parallel_for rethrows the failure of the lowest index and skips the rest") {
  for (const int threads : {1, 4}) {
    for (int round = 0; round < 50; ++round) {
      std::atomic<std::size_t> started{0};
      try {
        parallel_for(100'000, threads, [&](std::size_t i) {
          ++started;
          // The later failure comes first in time.
          if (i == 10) std::this_thread::sleep_for(std::chrono::microseconds(300));
          if (i >= 10 && i < 14) throw std::runtime_error(std::to_string(i));
        });
        FAIL("no exception");
      } catch (const std::runtime_error& error) {
        REQUIRE(std::string(error.what()) == "10");
      }
      REQUIRE(started < 100'000);
    }
  }
}

TEST_CASE("parallel_for can be nested") {
  std::atomic<int> calls{0};
  parallel_for(4, 4, [&](std::size_t) { parallel_for(10, 2, [&](std::size_t) { ++calls; }); });
  REQUIRE(calls == 40);
}

}  // namespace lora
