#include "text/score.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

namespace lora::text {
namespace {

constexpr int kLargestPower = 308;

double power_of_ten(int exponent) {
  static const auto powers = [] {
    std::array<double, kLargestPower + 1> values{};
    for (int i = 0; i <= kLargestPower; ++i) {
      const std::string text = "1e" + std::to_string(i);
      std::from_chars(text.data(), text.data() + text.size(), values[static_cast<std::size_t>(i)]);
    }
    return values;
  }();
  return powers[static_cast<std::size_t>(exponent)];
}

class NumberReader {
 public:
  explicit NumberReader(std::string_view text) : text_(text) {}

  std::optional<Score> read() {
    const bool is_negative = take('-');
    if (!read_digits(false)) return std::nullopt;
    if (take('.') && !read_digits(true)) return std::nullopt;
    if ((take('e') || take('E')) && !read_exponent()) return std::nullopt;
    double value = static_cast<double>(significand_);
    for (; exponent_ < -kLargestPower && value != 0; exponent_ += kLargestPower)
      value /= power_of_ten(kLargestPower);
    if (value != 0) {
      if (exponent_ > kLargestPower) return std::nullopt;
      value = exponent_ < 0 ? value / power_of_ten(-exponent_) : value * power_of_ten(exponent_);
    }
    if (std::isinf(value)) return std::nullopt;
    return Score{is_negative ? -value : value, at_};
  }

 private:
  bool take(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  bool is_digit() const { return at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; }

  // Digits beyond what 64 bits hold are dropped.
  bool read_digits(bool is_fraction) {
    constexpr std::uint64_t kLargest = std::numeric_limits<std::uint64_t>::max();
    const std::size_t begin = at_;
    for (; is_digit(); ++at_) {
      const auto digit = static_cast<std::uint64_t>(text_[at_] - '0');
      if (is_full_ || significand_ > (kLargest - digit) / 10) {
        is_full_ = true;
        if (!is_fraction) ++exponent_;
        continue;
      }
      significand_ = significand_ * 10 + digit;
      if (is_fraction) --exponent_;
    }
    const bool is_padded = !is_fraction && at_ > begin + 1 && text_[begin] == '0';
    return at_ > begin && !is_padded;
  }

  bool read_exponent() {
    constexpr int kLargest = 100'000'000;
    const bool is_negative = take('-');
    if (!is_negative) take('+');
    const std::size_t begin = at_;
    int value = 0;
    for (; is_digit(); ++at_)
      if (value < kLargest) value = value * 10 + (text_[at_] - '0');
    exponent_ += is_negative ? -value : value;
    return at_ > begin;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::uint64_t significand_ = 0;
  int exponent_ = 0;
  bool is_full_ = false;
};

}  // namespace

std::optional<Score> read_score(std::string_view text) { return NumberReader(text).read(); }

}  // namespace lora::text
