#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <set>

#include "lora/base/equal_bytes.h"
#include "lora/base/parallel.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/ops/diff.h"

namespace lora {
namespace {

// Values are widened this many elements at a time, so memory does not grow with the tensors.
constexpr std::int64_t kBlock = 1 << 16;

std::string form_of(const Tensor& tensor) {
  return std::string(to_string(tensor.dtype)) + " " + shape_to_string(tensor.shape);
}

void compare_values(const Tensor& a, const Tensor& b, TensorDifference& result) {
  const std::int64_t count = a.numel();
  std::vector<double> left(static_cast<std::size_t>(std::min(count, kBlock)));
  std::vector<double> right(left.size());
  double difference_squares = 0;
  double squares = 0;
  for (std::int64_t start = 0; start < count; start += kBlock) {
    const auto size = static_cast<std::size_t>(std::min(kBlock, count - start));
    const auto offset = static_cast<std::size_t>(start);
    widen(a.dtype, a.bytes.data() + offset * bits_of(a.dtype) / 8, std::span(left.data(), size));
    widen(b.dtype, b.bytes.data() + offset * bits_of(b.dtype) / 8, std::span(right.data(), size));
    for (std::size_t i = 0; i < size; ++i) {
      squares += left[i] * left[i];
      if (left[i] == right[i]) continue;
      ++result.changed_elements;
      const double difference = left[i] - right[i];
      difference_squares += difference * difference;
      if (!(std::fabs(difference) <= result.max_absolute))
        result.max_absolute = std::fabs(difference);
    }
  }
  result.relative = squares > 0              ? std::sqrt(difference_squares / squares)
                    : difference_squares > 0 ? std::numeric_limits<double>::infinity()
                                             : 0;
}

void compare_bytes(const Tensor& a, const Tensor& b, TensorDifference& result) {
  const std::size_t width = std::max<std::size_t>(1, bits_of(a.dtype) / 8);
  for (std::size_t i = 0; i + width <= a.bytes.size(); i += width)
    result.changed_elements +=
        std::memcmp(a.bytes.data() + i, b.bytes.data() + i, width) != 0 ? 1 : 0;
}

std::optional<TensorDifference> compare(const std::string& name, const Tensor& a, const Tensor& b) {
  TensorDifference result;
  result.name = name;
  result.a = form_of(a);
  result.b = form_of(b);
  result.elements = a.numel();
  if (a.shape != b.shape) {
    result.what = "shape";
    return result;
  }
  if (has_equal_bytes(a, b)) return std::nullopt;
  result.what = a.dtype == b.dtype ? "values" : "dtype";
  if (is_float(a.dtype) && is_float(b.dtype)) {
    compare_values(a, b, result);
  } else if (a.dtype == b.dtype) {
    compare_bytes(a, b, result);
  }
  return result;
}

std::set<std::string> names_of(const Checkpoint& checkpoint) {
  std::set<std::string> names;
  for (const auto& [name, tensor] : checkpoint.tensors) names.insert(name);
  for (const auto& [name, target] : checkpoint.aliases) names.insert(name);
  return names;
}

}  // namespace

CheckpointDiff diff(const Checkpoint& a, const Checkpoint& b,
                    const CheckpointDiffOptions& options) {
  CheckpointDiff result;
  const std::set<std::string> left = names_of(a);
  const std::set<std::string> right = names_of(b);
  std::vector<std::string> common;
  std::set_intersection(left.begin(), left.end(), right.begin(), right.end(),
                        std::back_inserter(common));
  std::set_difference(left.begin(), left.end(), right.begin(), right.end(),
                      std::back_inserter(result.only_in_a));
  std::set_difference(right.begin(), right.end(), left.begin(), left.end(),
                      std::back_inserter(result.only_in_b));
  std::vector<std::optional<TensorDifference>> differences(common.size());
  std::atomic<std::uint64_t> done{0};
  parallel_for(common.size(), options.threads, [&](std::size_t i) {
    options.sinks.throw_if_cancelled();
    differences[i] = compare(common[i], *a.find(common[i]), *b.find(common[i]));
    options.sinks.report(++done, common.size());
  });
  for (auto& difference : differences) {
    if (difference) {
      result.changed.push_back(std::move(*difference));
    } else {
      ++result.equal;
    }
  }
  std::stable_sort(
      result.changed.begin(), result.changed.end(),
      [](const TensorDifference& x, const TensorDifference& y) { return x.relative > y.relative; });
  return result;
}

}  // namespace lora
