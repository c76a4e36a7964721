#include "support/torch_testing.h"
//
#include <cmath>
#include <limits>
#include <vector>

#include "engine/kernels/quantised.h"
#include "lora/base/random.h"
#include "lora/format/safetensors.h"

using namespace lora;
using namespace lora::engine;
using namespace lora::testing;

namespace {

std::vector<float> normal_values(std::int64_t count, std::uint64_t seed) {
  const CounterRandom random(seed, 0);
  std::vector<float> values;
  for (std::int64_t i = 0; i < count; ++i)
    values.push_back(0.1F * static_cast<float>(random.normal(static_cast<std::uint64_t>(i))));
  return values;
}

struct Coded {
  std::vector<std::uint8_t> codes;
  std::vector<float> scales;
};

Coded nf4_of(const std::vector<float>& values) {
  const auto count = static_cast<std::int64_t>(values.size());
  Coded coded{std::vector<std::uint8_t>((values.size() + 1) / 2),
              std::vector<float>(values.size() / kNf4Block + 1)};
  REQUIRE(quantise_nf4(values.data(), count, coded.codes.data(), coded.scales.data()));
  coded.scales.resize((values.size() + kNf4Block - 1) / kNf4Block);
  return coded;
}

std::vector<float> floats_of(const Tensor& tensor) { return tensor.to_f32(); }

// Readable and slow: what widening means.
float plain_nf4(const Coded& coded, std::size_t i) {
  const int both = coded.codes[i / 2];
  return nf4_value(i % 2 == 0 ? both >> 4 : both & 15) * coded.scales[i / kNf4Block];
}

}  // namespace

TEST_CASE("nf4 codes, scales and values are those of bitsandbytes", "[quantised]") {
  const TensorMap golden = read_safetensors(std::filesystem::path(LORA_SOURCE_DIR) /
                                            "tests/golden/engine/quantised/nf4.safetensors")
                               .tensors;
  int cases = 0;
  for (const auto& [name, values] : golden) {
    if (!name.ends_with(".values")) continue;
    ++cases;
    INFO(name);
    const std::string prefix = name.substr(0, name.size() - 6);
    const Coded coded = nf4_of(floats_of(values));
    const Tensor& codes = golden.at(prefix + "codes");
    REQUIRE(codes.bytes.size() == coded.codes.size());
    CHECK(std::memcmp(codes.bytes.data(), coded.codes.data(), coded.codes.size()) == 0);
    CHECK(floats_of(golden.at(prefix + "scales")) == coded.scales);
    std::vector<float> wide(static_cast<std::size_t>(values.numel()));
    widen_nf4(coded.codes.data(), coded.scales.data(), 0, values.numel(), wide.data());
    CHECK(floats_of(golden.at(prefix + "widened")) == wide);
  }
  CHECK(cases == 6);
}

TEST_CASE("any stretch of a quantised matrix widens to the same numbers", "[quantised]") {
  const std::vector<float> values = normal_values(517, 3);
  const Coded coded = nf4_of(values);
  std::vector<std::int8_t> bytes(values.size());
  std::vector<float> scales((values.size() + kInt8Block - 1) / kInt8Block);
  REQUIRE(quantise_int8(values.data(), 517, bytes.data(), scales.data()));
  for (const auto& [first, count] : {std::pair{0, 517}, std::pair{1, 20}, std::pair{63, 2},
                                     std::pair{5, 140}, std::pair{128, 64}, std::pair{509, 8}}) {
    std::vector<float> wide(static_cast<std::size_t>(count) + 1, 77.0F);
    widen_nf4(coded.codes.data(), coded.scales.data(), first, count, wide.data());
    for (int i = 0; i < count; ++i)
      CHECK(wide[static_cast<std::size_t>(i)] ==
            plain_nf4(coded, static_cast<std::size_t>(first + i)));
    CHECK(wide.back() == 77.0F);
    widen_int8(bytes.data(), scales.data(), first, count, wide.data());
    for (int i = 0; i < count; ++i) {
      const auto at = static_cast<std::size_t>(first + i);
      CHECK(wide[static_cast<std::size_t>(i)] ==
            static_cast<float>(bytes[at]) * scales[at / kInt8Block]);
    }
    CHECK(wide.back() == 77.0F);
  }
}

TEST_CASE("int8 keeps each value to half a step of its block", "[quantised]") {
  const std::vector<float> values = normal_values(300, 4);
  std::vector<std::int8_t> codes(values.size());
  std::vector<float> scales(3), wide(values.size());
  REQUIRE(quantise_int8(values.data(), 300, codes.data(), scales.data()));
  widen_int8(codes.data(), scales.data(), 0, 300, wide.data());
  for (std::size_t block = 0; block < 3; ++block) {
    float largest = 0;
    for (std::size_t i = block * 128; i < std::min<std::size_t>(300, block * 128 + 128); ++i) {
      largest = std::max(largest, std::fabs(values[i]));
      CHECK(std::fabs(values[i] - wide[i]) <= 0.5F * scales[block] * 1.0001F);
    }
    CHECK(scales[block] == largest / 127.0F);
  }
}

TEST_CASE("zeros stay zero and what is not finite is refused", "[quantised]") {
  std::vector<float> values(70, 0.0F);
  const Coded coded = nf4_of(values);
  std::vector<float> wide(70, 1.0F);
  widen_nf4(coded.codes.data(), coded.scales.data(), 0, 70, wide.data());
  CHECK(wide == values);
  std::vector<std::int8_t> bytes(70);
  std::vector<float> scales(2);
  REQUIRE(quantise_int8(values.data(), 70, bytes.data(), scales.data()));
  CHECK(bytes == std::vector<std::int8_t>(70, 0));
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    values[66] = bad;
    std::vector<std::uint8_t> codes(35);
    CHECK_FALSE(quantise_nf4(values.data(), 70, codes.data(), scales.data()));
    CHECK_FALSE(quantise_int8(values.data(), 70, bytes.data(), scales.data()));
  }
}
