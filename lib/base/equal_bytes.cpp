#include "lora/base/equal_bytes.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "lora/base/dtype.h"

namespace lora {

bool has_equal_bytes(const Tensor& a, const Tensor& b) {
  return a.dtype == b.dtype && a.shape == b.shape && a.bytes.size() == b.bytes.size() &&
         (a.bytes.data() == b.bytes.data() || a.bytes.empty() ||
          std::memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()) == 0);
}

bool has_equal_values(const Tensor& a, const Tensor& b, std::size_t first, std::size_t count) {
  const auto from = [](const Tensor& tensor, std::size_t index) {
    return tensor.bytes.data() + index * bits_of(tensor.dtype) / 8;
  };
  if (count == 0) return true;
  if (a.dtype == b.dtype)
    return a.bytes.data() == b.bytes.data() ||
           std::memcmp(from(a, first), from(b, first), count * bits_of(a.dtype) / 8) == 0;
  constexpr std::size_t kRun = 4096;
  std::vector<double> x(kRun), y(kRun);
  for (std::size_t i = first; i < first + count; i += kRun) {
    const std::size_t n = std::min(kRun, first + count - i);
    widen(a.dtype, from(a, i), std::span(x).first(n));
    widen(b.dtype, from(b, i), std::span(y).first(n));
    if (!std::equal(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(n), y.begin())) return false;
  }
  return true;
}

}  // namespace lora
