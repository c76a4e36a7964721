#include "lora/ops/output_difference.h"

#include <cmath>
#include <limits>

#include "lora/base/random.h"
#include "support/testing.h"

using namespace lora;

namespace {

OutputMatrix random_outputs(std::int64_t rows, std::int64_t width, std::uint64_t seed) {
  OutputMatrix result{rows, width, {}};
  const CounterRandom random(seed, 1);
  for (std::int64_t i = 0; i < rows * width; ++i)
    result.values.push_back(static_cast<float>(3 * random.normal(static_cast<std::uint64_t>(i))));
  return result;
}

// The definition, in long double.
double divergence(const OutputMatrix& a, const OutputMatrix& b) {
  long double sum = 0;
  for (std::int64_t i = 0; i < a.rows; ++i) {
    long double za = 0, zb = 0;
    for (std::int64_t j = 0; j < a.width; ++j) {
      za += std::exp((long double)a.values[i * a.width + j]);
      zb += std::exp((long double)b.values[i * b.width + j]);
    }
    for (std::int64_t j = 0; j < a.width; ++j) {
      const long double p = std::exp((long double)a.values[i * a.width + j]) / za;
      const long double q = std::exp((long double)b.values[i * b.width + j]) / zb;
      sum += p * std::log(p / q);
    }
  }
  return static_cast<double>(sum / a.rows);
}

}  // namespace

TEST_CASE("differences of whole outputs follow their definitions") {
  const OutputMatrix a = random_outputs(5, 70, 1);
  OutputMatrix b = a;
  REQUIRE(difference(a, b).is_bit_equal);
  REQUIRE(difference(a, b).kl == 0);
  b.values[3] += 2;
  b.values[75] -= 1;
  const OutputDifference result = difference(a, b);
  REQUIRE(!result.is_bit_equal);
  REQUIRE(result.largest == Approx(2));
  REQUIRE(result.rms == Approx(std::sqrt(5.0 / 350)));
  REQUIRE(result.kl == Approx(divergence(a, b)).epsilon(1e-9));
}

TEST_CASE("the agreement counts rows with the same best output") {
  const OutputMatrix a{4, 2, {1, 0, 1, 0, 1, 0, 1, 0}};
  const OutputMatrix b{4, 2, {1, 0, 0, 1, 1, 0, 1, 0}};
  REQUIRE(difference(a, b).argmax_agreement == 0.75);
  REQUIRE(difference(record_outputs(a), b).argmax_agreement == 0.75);
}

TEST_CASE("a record of all outputs gives the same figures as the outputs themselves") {
  const OutputMatrix a = random_outputs(4, 20, 2);
  const OutputMatrix b = random_outputs(4, 20, 3);
  const OutputDifference whole = difference(a, b);
  const OutputDifference recorded = difference(record_outputs(a), b);
  REQUIRE(recorded.largest == Approx(whole.largest));
  REQUIRE(recorded.kl == Approx(whole.kl).epsilon(1e-9));
}

TEST_CASE("a record of the largest outputs bounds the divergence from below, and tightly") {
  const OutputMatrix a = random_outputs(6, 500, 4);
  OutputMatrix b = a;
  for (float& value : b.values) value *= 0.9F;
  const double whole = difference(a, b).kl;
  const double recorded = difference(record_outputs(a), b).kl;
  REQUIRE(recorded <= whole * (1 + 1e-9));
  REQUIRE(recorded > 0.8 * whole);
}

TEST_CASE("a change outside the recorded outputs is seen in the digest and the log-sum") {
  const OutputMatrix a = random_outputs(1, 200, 5);
  const RecordedOutputs record = record_outputs(a);
  REQUIRE(difference(record, a).is_bit_equal);
  REQUIRE(difference(record, a).largest == 0);
  OutputMatrix b = a;
  const auto smallest = std::min_element(b.values.begin(), b.values.end());
  *smallest += 8;
  const OutputDifference result = difference(record, b);
  REQUIRE(!result.is_bit_equal);
  REQUIRE(result.largest > 0);
}

TEST_CASE("outputs that are not numbers are infinitely far away") {
  const OutputMatrix a{1, 2, {1, 2}};
  const OutputMatrix b{1, 2, {1, std::numeric_limits<float>::quiet_NaN()}};
  REQUIRE(difference(a, b).largest == HUGE_VAL);
  REQUIRE(difference(record_outputs(a), b).largest == HUGE_VAL);
  const float infinite = std::numeric_limits<float>::infinity();
  REQUIRE(difference({1, 1, {infinite}}, {1, 1, {infinite}}).largest == 0);
}

TEST_CASE("outputs of other sizes cannot be compared") {
  testing::require_error(ErrorKind::incompatible, "3 outputs", [] {
    difference(OutputMatrix{1, 2, {1, 2}}, OutputMatrix{1, 3, {1, 2, 3}});
  });
}
