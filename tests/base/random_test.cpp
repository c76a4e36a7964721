#include "lora/base/random.h"

#include <cmath>
#include <vector>

#include "support/testing.h"

namespace lora {

// The known answers of the Random123 distribution for philox4x32 with 10 rounds. A block's counter
// is (index, stream) and its key the seed, least significant word first.
TEST_CASE("blocks are those of Philox 4x32-10") {
  using Block = std::array<std::uint32_t, 4>;
  REQUIRE(CounterRandom(0, 0).block(0) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const std::uint64_t ones = 0xFFFFFFFFFFFFFFFFULL;
  REQUIRE(CounterRandom(ones, ones).block(ones) ==
          Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  REQUIRE(
      CounterRandom(0x299f31d0a4093822ULL, 0x0370734413198a2eULL).block(0x85a308d3243f6a88ULL) ==
      Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("uniform and normal values follow from the blocks exactly") {
  const CounterRandom random(0, 0);
  // The upper 53 bits of the words 6627e8d5 e169c58d.
  REQUIRE(random.uniform(0) == std::ldexp(0x6627e8d5e169c58dULL >> 11, -53));
  double sum = -6.0;
  for (std::uint64_t block = 0; block < 3; ++block)
    for (const std::uint32_t word : random.block(block)) sum += (word + 0.5) / 4294967296.0;
  REQUIRE(random.normal(0) == sum);
}

TEST_CASE("uniform values lie in [0, 1) with the right mean and variance") {
  const CounterRandom random(42, stream_of("uniform"));
  constexpr int count = 200'000;
  double sum = 0;
  double squares = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const double value = random.uniform(i);
    REQUIRE((value >= 0.0 && value < 1.0));
    sum += value - 0.5;
    squares += (value - 0.5) * (value - 0.5);
  }
  REQUIRE(std::fabs(sum / count) < 5 * std::sqrt(1.0 / 12 / count));
  REQUIRE(std::fabs(squares / count - 1.0 / 12) < 0.001);
}

TEST_CASE("normal values have mean 0, variance 1 and stay within 6") {
  const CounterRandom random(42, stream_of("normal"));
  constexpr int count = 200'000;
  double sum = 0;
  double squares = 0;
  int within_one = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const double value = random.normal(i);
    REQUIRE(std::fabs(value) < 6.0);
    sum += value;
    squares += value * value;
    within_one += std::fabs(value) < 1 ? 1 : 0;
  }
  REQUIRE(std::fabs(sum / count) < 5 / std::sqrt(count));
  REQUIRE(std::fabs(squares / count - 1) < 0.02);
  REQUIRE(std::fabs(within_one / static_cast<double>(count) - 0.6827) < 0.01);
}

TEST_CASE("seeds and streams give different values, the same ones the same") {
  REQUIRE(CounterRandom(1, 2).uniform(3) == CounterRandom(1, 2).uniform(3));
  REQUIRE(CounterRandom(1, 2).uniform(3) != CounterRandom(2, 2).uniform(3));
  REQUIRE(CounterRandom(1, 2).uniform(3) != CounterRandom(1, 3).uniform(3));
  REQUIRE(CounterRandom(1, 2).uniform(3) != CounterRandom(1, 2).uniform(4));
  REQUIRE(CounterRandom(1, 1ULL << 40).uniform(3) != CounterRandom(1, 0).uniform(3));
}

TEST_CASE("below covers its range evenly") {
  const CounterRandom random(7, 0);
  std::vector<int> counts(10);
  for (std::uint64_t i = 0; i < 100'000; ++i) ++counts.at(random.below(i, counts.size()));
  for (const int n : counts) REQUIRE(std::abs(n - 10'000) < 500);
  REQUIRE(random.below(0, 1) == 0);
}

TEST_CASE("the stream of a name is its FNV-1a hash") {
  REQUIRE(stream_of("") == 0xcbf29ce484222325ULL);
  REQUIRE(stream_of("a") == 0xaf63dc4c8601ec8cULL);
  REQUIRE(stream_of("foobar") == 0x85944171f73967e8ULL);
}

}  // namespace lora
