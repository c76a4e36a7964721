#include "lora/base/checked.h"

#include <limits>
#include <vector>

#include "support/testing.h"

namespace lora {

constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();

TEST_CASE("checked arithmetic gives the result or nothing") {
  REQUIRE(checked_add(kMax - 1, 1) == kMax);
  REQUIRE_FALSE(checked_add(kMax, 1));
  REQUIRE_FALSE(checked_add(kMax, kMax));
  REQUIRE(checked_mul(kMax, 1) == kMax);
  REQUIRE(checked_mul(kMax, 0) == 0);
  REQUIRE(checked_mul(1ULL << 32, (1ULL << 32) - 1) == ((1ULL << 32) - 1) << 32);
  REQUIRE_FALSE(checked_mul(1ULL << 32, 1ULL << 32));
}

TEST_CASE("number of elements is a product checked left to right") {
  using Shape = std::vector<std::int64_t>;
  REQUIRE(checked_numel(Shape{}) == 1);
  REQUIRE(checked_numel(Shape{2, 3, 4}) == 24);
  REQUIRE(checked_numel(Shape{0, 1LL << 62, 8}) == 0);
  REQUIRE_FALSE(checked_numel(Shape{1LL << 62, 8}));
  REQUIRE_FALSE(checked_numel(Shape{1LL << 62, 8, 0}));
  REQUIRE_FALSE(checked_numel(Shape{2, -1}));
  REQUIRE(checked_numel(Shape{1LL << 62, 2}) == 1ULL << 63);
}

}  // namespace lora
