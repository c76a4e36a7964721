#include "lora/ops/output_difference.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "lora/base/error.h"

namespace lora {
namespace {

// Sums over the compared pairs of outputs.
struct Pairs {
  double largest = 0, squares = 0;
  std::int64_t count = 0;

  void add(double a, double b) {
    const double gap = a == b ? 0 : std::fabs(a - b);  // equal infinities differ by nothing
    largest = std::isnan(gap) || std::isnan(largest) ? HUGE_VAL : std::max(largest, gap);
    squares += std::isnan(gap) ? HUGE_VAL : gap * gap;
    ++count;
  }
};

double divergence_term(double log_p, double log_q) {
  const double p = std::exp(log_p);
  return p > 0 ? p * (log_p - log_q) : 0;
}

std::int64_t best_of(const float* row, std::int64_t width) {
  return std::max_element(row, row + width) - row;
}

void require_same(std::int64_t rows_a, std::int64_t width_a, const OutputMatrix& b) {
  if (rows_a == b.rows && width_a == b.width) return;
  throw Error(ErrorKind::incompatible, "comparing outputs: found " + std::to_string(b.rows) +
                                           " rows of " + std::to_string(b.width) +
                                           " outputs, expected " + std::to_string(rows_a) +
                                           " rows of " + std::to_string(width_a));
}

OutputDifference finish(const Pairs& pairs, double kl, std::int64_t same, std::int64_t rows,
                        bool is_bit_equal) {
  OutputDifference result;
  result.is_bit_equal = is_bit_equal;
  result.largest = pairs.largest;
  if (pairs.count > 0) result.rms = std::sqrt(pairs.squares / static_cast<double>(pairs.count));
  if (rows == 0) return result;
  // Rounding can leave a hair below zero, which the divergence never is.
  result.kl = std::isnan(kl) ? HUGE_VAL : std::max(0.0, kl / static_cast<double>(rows));
  result.argmax_agreement = static_cast<double>(same) / static_cast<double>(rows);
  return result;
}

template <typename T>
T element(const Tensor& tensor, std::int64_t i) {
  T value;
  std::memcpy(&value, tensor.bytes.data() + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
  return value;
}

}  // namespace

OutputDifference difference(const OutputMatrix& a, const OutputMatrix& b) {
  require_same(a.rows, a.width, b);
  const bool is_bit_equal =
      std::memcmp(a.values.data(), b.values.data(), a.values.size() * sizeof(float)) == 0;
  Pairs pairs;
  double kl = 0;
  std::int64_t same = 0;
  for (std::int64_t i = 0; i < a.rows; ++i) {
    const float* left = a.values.data() + i * a.width;
    const float* right = b.values.data() + i * b.width;
    const double left_sum = log_sum_of(left, a.width);
    const double right_sum = log_sum_of(right, b.width);
    for (std::int64_t j = 0; j < a.width; ++j) {
      pairs.add(left[j], right[j]);
      kl += divergence_term(left[j] - left_sum, right[j] - right_sum);
    }
    same += best_of(left, a.width) == best_of(right, b.width) ? 1 : 0;
  }
  return finish(pairs, kl, same, a.rows, is_bit_equal);
}

OutputDifference difference(const RecordedOutputs& recorded, const OutputMatrix& now) {
  const std::int64_t rows = recorded.values.shape.at(0);
  const std::int64_t kept = recorded.values.shape.at(1);
  require_same(rows, recorded.width, now);
  Pairs pairs;
  double kl = 0;
  std::int64_t same = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* row = now.values.data() + i * now.width;
    const double recorded_sum = element<double>(recorded.log_sum, i);
    const double now_sum = log_sum_of(row, now.width);
    pairs.add(recorded_sum, now_sum);
    double recorded_rest = 1;
    double now_rest = 1;
    for (std::int64_t k = 0; k < kept; ++k) {
      const auto index = element<std::int64_t>(recorded.indices, i * kept + k);
      const double value = element<float>(recorded.values, i * kept + k);
      pairs.add(value, row[index]);
      kl += divergence_term(value - recorded_sum, row[index] - now_sum);
      recorded_rest -= std::exp(value - recorded_sum);
      now_rest -= std::exp(row[index] - now_sum);
    }
    // What was not kept, as one outcome; below this it is rounding of the sums.
    constexpr double kNothing = 1e-9;
    if (recorded_rest > kNothing && now_rest > kNothing)
      kl += divergence_term(std::log(recorded_rest), std::log(now_rest));
    same += element<std::int64_t>(recorded.indices, i * kept) == best_of(row, now.width) ? 1 : 0;
  }
  const bool is_bit_equal = sha256(std::as_bytes(std::span(now.values))) == recorded.digest;
  return finish(pairs, kl, same, rows, is_bit_equal);
}

double magnitude_of(const RecordedOutputs& recorded) {
  double largest = 0;
  for (std::int64_t i = 0; i < recorded.values.numel(); ++i) {
    const double value = std::fabs(static_cast<double>(element<float>(recorded.values, i)));
    if (std::isfinite(value)) largest = std::max(largest, value);
  }
  return largest;
}

}  // namespace lora
