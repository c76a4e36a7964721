#include "ops/background.h"

#include <algorithm>
#include <atomic>
#include <latch>
#include <stdexcept>
#include <thread>
#include <vector>

#include "support/testing.h"

using lora::Background;

TEST_CASE("work beside the pass is done in its order, with a thread and without") {
  for (const int threads : {0, 1}) {
    std::vector<int> order;
    Background background(threads, false);
    for (int i = 0; i < 100; ++i) background.add([&order, i] { order.push_back(i); });
    background.settle();
    REQUIRE(order.size() == 100);
    REQUIRE(std::is_sorted(order.begin(), order.end()));
    background.settle();
  }
}

TEST_CASE("a failure beside the pass comes out where it waits, and nothing begins after it") {
  for (const int threads : {1, 3}) {
    Background background(threads, threads == 1);
    background.add([] { throw std::runtime_error("no"); });
    REQUIRE_THROWS_WITH(background.settle(), "no");
    bool began = false;
    background.add([&began] { began = true; });
    REQUIRE_THROWS_WITH(background.settle(), "no");
    REQUIRE(!began);
  }
}

TEST_CASE("whoever waits helps where the order does not matter") {
  std::atomic<int> done{0};
  Background background(1, true);
  for (int i = 0; i < 100; ++i) background.add([&done] { ++done; });
  background.settle();
  REQUIRE(done == 100);
}

TEST_CASE("who has time does a job that has not begun") {
  Background background(1, false);
  std::latch begun(1), go_on(1);
  background.add([&] {
    begun.count_down();
    go_on.wait();
  });
  begun.wait();
  REQUIRE(!background.help());
  std::thread::id who;
  background.add([&] { who = std::this_thread::get_id(); });
  REQUIRE(background.help());
  REQUIRE(who == std::this_thread::get_id());
  REQUIRE(!background.help());
  background.add([] { throw std::runtime_error("no"); });
  REQUIRE(background.help());
  go_on.count_down();
  REQUIRE_THROWS_WITH(background.settle(), "no");
}
