#include "checkpoint/natural_order.h"

#include <cstddef>

namespace lora {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string_view take_digits(std::string_view& text) {
  std::size_t length = 0;
  while (length < text.size() && is_digit(text[length])) ++length;
  const std::string_view digits = text.substr(0, length);
  text.remove_prefix(length);
  return digits;
}

std::string_view without_leading_zeros(std::string_view digits) {
  while (digits.size() > 1 && digits.front() == '0') digits.remove_prefix(1);
  return digits;
}

int rank(char c) { return c == '.' ? -1 : static_cast<unsigned char>(c); }

}  // namespace

bool natural_less(std::string_view a, std::string_view b) {
  std::string_view x = a;
  std::string_view y = b;
  while (!x.empty() && !y.empty()) {
    if (is_digit(x.front()) && is_digit(y.front())) {
      const std::string_view m = without_leading_zeros(take_digits(x));
      const std::string_view n = without_leading_zeros(take_digits(y));
      if (m.size() != n.size()) return m.size() < n.size();
      if (m != n) return m < n;
      continue;
    }
    if (x.front() != y.front()) return rank(x.front()) < rank(y.front());
    x.remove_prefix(1);
    y.remove_prefix(1);
  }
  if (x.empty() != y.empty()) return x.empty();
  return a < b;
}

bool differ_only_in_numbers(std::string_view a, std::string_view b) {
  while (!a.empty() && !b.empty()) {
    const bool digits = is_digit(a.front());
    if (digits != is_digit(b.front())) return false;
    if (digits) {
      take_digits(a);
      take_digits(b);
      continue;
    }
    if (a.front() != b.front()) return false;
    a.remove_prefix(1);
    b.remove_prefix(1);
  }
  return a.empty() && b.empty();
}

}  // namespace lora
