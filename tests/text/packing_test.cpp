#include "lora/text/packing.h"

#include <algorithm>
#include <numeric>

#include "lora/base/random.h"
#include "support/testing.h"

namespace lora {
namespace {

using testing::require_error;

// Mostly short, a few long, as instructions are.
std::vector<std::int64_t> lengths_of(std::size_t count) {
  const CounterRandom random(3, 0);
  std::vector<std::int64_t> lengths;
  for (std::size_t i = 0; i < count; ++i) {
    const double u = random.uniform(i);
    lengths.push_back(1 + static_cast<std::int64_t>(511 * u * u * u));
  }
  return lengths;
}

TEST_CASE("every document is packed once, whole, into rows that are nearly full") {
  const std::vector<std::int64_t> lengths = lengths_of(20000);
  for (const bool shuffle : {true, false}) {
    const auto rows = pack_documents(lengths, 512, 7, shuffle);
    std::vector<std::size_t> seen;
    for (const auto& row : rows) {
      std::int64_t tokens = 0;
      for (const std::size_t document : row) tokens += lengths[document];
      REQUIRE(tokens <= 512);
      REQUIRE(tokens > 0);
      seen.insert(seen.end(), row.begin(), row.end());
    }
    std::sort(seen.begin(), seen.end());
    REQUIRE(seen.size() == lengths.size());
    for (std::size_t i = 0; i < seen.size(); ++i) REQUIRE(seen[i] == i);
    const auto total = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
    REQUIRE(static_cast<double>(total) > 0.99 * 512 * static_cast<double>(rows.size()));
  }
}

TEST_CASE("rows are a function of lengths, seed and order") {
  const std::vector<std::int64_t> lengths = lengths_of(500);
  const auto rows = pack_documents(lengths, 512, 7, true);
  REQUIRE(rows == pack_documents(lengths, 512, 7, true));
  REQUIRE(rows != pack_documents(lengths, 512, 8, true));
  REQUIRE(pack_documents(lengths, 512, 7, false) == pack_documents(lengths, 512, 8, false));
}

TEST_CASE("without shuffling rows and the documents in them stand in the order of the file") {
  const std::vector<std::int64_t> lengths{4, 6, 3, 7, 10};
  REQUIRE(pack_documents(lengths, 10, 0, false) ==
          std::vector<std::vector<std::size_t>>{{0, 1}, {2, 3}, {4}});
  require_error(ErrorKind::internal, "a document of 11 tokens into rows of 10",
                [] { pack_documents(std::vector<std::int64_t>{11}, 10, 0, false); });
}

}  // namespace
}  // namespace lora
