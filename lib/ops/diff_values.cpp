#include "ops/diff_values.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "ops/diff_groups.h"
#include "ops/numbers/compare_kernels.h"
#include "ops/numbers/kernels.h"

namespace lora {
namespace {

constexpr std::int64_t kBlock = 2048;

int precision_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return 53;
    case DType::f32:
      return 24;
    case DType::f16:
      return 11;
    default:
      return 8;
  }
}

const std::byte* at(const Tensor& tensor, std::int64_t index) {
  return tensor.bytes.data() + static_cast<std::size_t>(index) * bits_of(tensor.dtype) / 8;
}

double sum_of(const std::array<double, 8>& lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// Sign and magnitude bits as a number ordered as the values are.
std::int64_t order_of(const std::byte* p, std::size_t width) {
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < width; ++i) bits |= static_cast<std::uint64_t>(p[i]) << (8 * i);
  const std::uint64_t sign = std::uint64_t{1} << (8 * width - 1);
  const auto magnitude = static_cast<std::int64_t>(bits & (sign - 1));
  return (bits & sign) != 0 ? -magnitude : magnitude;
}

std::uint64_t distance_of(std::int64_t a, std::int64_t b) {
  return a > b ? static_cast<std::uint64_t>(a) - static_cast<std::uint64_t>(b)
               : static_cast<std::uint64_t>(b) - static_cast<std::uint64_t>(a);
}

// Both sides rounded to one dtype, for pairs of dtypes and values that the kernels do not take.
class CarefulBlock {
 public:
  CarefulBlock(const Tensor& a, const Tensor& b, DType coarser, std::int64_t first,
               std::size_t count)
      : width_(bits_of(coarser) / 8), left_(count), right_(count) {
    widen(a.dtype, at(a, first), std::span(left_));
    widen(b.dtype, at(b, first), std::span(right_));
    left_bits_.resize(count * width_);
    right_bits_.resize(count * width_);
    narrow(std::span<const double>(left_), coarser, left_bits_.data());
    narrow(std::span<const double>(right_), coarser, right_bits_.data());
  }

  void add_to(ValuePiece& piece) const {
    for (std::size_t i = 0; i < left_.size(); ++i) add(i, piece);
  }

 private:
  void add(std::size_t i, ValuePiece& piece) const {
    const double x = left_[i];
    const double y = right_[i];
    piece.non_finite_a += std::isfinite(x) ? 0 : 1;
    piece.non_finite_b += std::isfinite(y) ? 0 : 1;
    if (std::isnan(x) && std::isnan(y)) {
      piece.steps[0] += 1;
      return;
    }
    piece.changed += x == y ? 0 : 1;
    if (std::isnan(x) || std::isnan(y)) {
      piece.not_comparable += 1;
      piece.largest = std::numeric_limits<double>::infinity();
      return;
    }
    const std::uint64_t steps = distance_of(order_of(left_bits_.data() + i * width_, width_),
                                            order_of(right_bits_.data() + i * width_, width_));
    piece.steps[static_cast<std::size_t>(std::bit_width(steps))] += 1;
    if (x == y && !std::isfinite(x)) return;
    piece.largest = std::max(piece.largest, std::fabs(x - y));
    if (!std::isfinite(x) || !std::isfinite(y)) return;
    piece.squares += (x - y) * (x - y);
    piece.squares_a += x * x;
    piece.squares_b += y * y;
  }

  std::size_t width_;
  std::vector<double> left_, right_;
  std::vector<std::byte> left_bits_, right_bits_;
};

// A run of values of one dtype, up to kBlock long, through the kernels.
class FastBlocks {
 public:
  FastBlocks(const Tensor& a, const Tensor& b) : a_(a), b_(b) {}

  /// False when a value is not finite; nothing is counted then.
  bool add(std::int64_t first, std::size_t count, ValuePiece& piece) {
    const auto& kernels = numbers::compare_kernels();
    const std::byte* left = at(a_, first);
    const std::byte* right = at(b_, first);
    std::array<std::int64_t, 33> reached{};
    reached[0] = static_cast<std::int64_t>(count);
    // reached[k + 1]: pairs 2^k steps apart or more.
    int bits = 0;
    const auto is_finite = [&](const numbers::StepRange& range) {
      bits = static_cast<int>(std::bit_width(range.any));
      return range.peak < infinity_of(a_.dtype);
    };
    if (a_.dtype == DType::f32) {
      const float* x = floats_at(left, count, left_);
      const float* y = floats_at(right, count, right_);
      if (!is_finite(kernels.steps_32(x, y, count, steps_32_.data()))) return false;
      kernels.count_32(steps_32_.data(), count, bits, &reached[1]);
      kernels.compare_f32(x, y, count, sums_);
    } else {
      if (!is_finite(kernels.steps_16(left, right, count, steps_16_.data()))) return false;
      kernels.count_16(steps_16_.data(), count, bits, &reached[1]);
      if (a_.dtype == DType::bf16) {
        kernels.compare_bf16(left, right, count, sums_);
      } else {
        numbers::kernels().widen_f16(left, count, left_.data());
        numbers::kernels().widen_f16(right, count, right_.data());
        kernels.compare_f32(left_.data(), right_.data(), count, sums_);
      }
    }
    piece.changed += reached[1];
    for (std::size_t k = 0; k <= static_cast<std::size_t>(bits); ++k)
      piece.steps[k] += reached[k] - (k < 32 ? reached[k + 1] : 0);
    return true;
  }

  void finish(ValuePiece& piece) const {
    piece.squares += sum_of(sums_.squares);
    piece.squares_a += sum_of(sums_.squares_a);
    piece.squares_b += sum_of(sums_.squares_b);
    piece.largest = std::max(piece.largest, sums_.largest);
  }

 private:
  static std::uint32_t infinity_of(DType dtype) {
    if (dtype == DType::f32) return 0x7F800000;
    return dtype == DType::f16 ? 0x7C00 : 0x7F80;
  }

  static const float* floats_at(const std::byte* data, std::size_t count,
                                std::array<float, kBlock>& copy) {
    if (reinterpret_cast<std::uintptr_t>(data) % alignof(float) == 0)
      return reinterpret_cast<const float*>(data);
    std::memcpy(copy.data(), data, count * sizeof(float));
    return copy.data();
  }

  const Tensor& a_;
  const Tensor& b_;
  numbers::Comparison sums_;
  std::array<float, kBlock> left_, right_;
  std::array<std::int16_t, kBlock> steps_16_;
  std::array<std::int32_t, kBlock> steps_32_;
};

}  // namespace

DType coarser_of(DType a, DType b) { return precision_of(a) <= precision_of(b) ? a : b; }

ValuePiece compare_values(const Tensor& a, const Tensor& b, std::int64_t first,
                          std::int64_t count) {
  ValuePiece piece;
  const DType coarser = coarser_of(a.dtype, b.dtype);
  const bool has_kernels = a.dtype == b.dtype && a.dtype != DType::f64;
  FastBlocks blocks(a, b);
  for (std::int64_t start = first; start < first + count; start += kBlock) {
    const auto size = static_cast<std::size_t>(std::min(kBlock, first + count - start));
    if (has_kernels && blocks.add(start, size, piece)) continue;
    CarefulBlock(a, b, coarser, start, size).add_to(piece);
  }
  blocks.finish(piece);
  return piece;
}

void join(const Tensor& a, const Tensor& b, std::span<const ValuePiece> pieces,
          TensorDifference& result) {
  const DType coarser = coarser_of(a.dtype, b.dtype);
  double squares = 0, squares_a = 0, squares_b = 0;
  result.ulps.dtype = to_string(coarser);
  result.ulps.counts.assign(bits_of(coarser) + 1, 0);
  for (const ValuePiece& piece : pieces) {
    squares += piece.squares;
    squares_a += piece.squares_a;
    squares_b += piece.squares_b;
    result.max_absolute = std::max(result.max_absolute, piece.largest);
    result.changed_elements += piece.changed;
    result.non_finite_a += piece.non_finite_a;
    result.non_finite_b += piece.non_finite_b;
    result.ulps.not_comparable += piece.not_comparable;
    for (std::size_t i = 0; i < result.ulps.counts.size(); ++i)
      result.ulps.counts[i] += piece.steps[i];
  }
  result.difference = std::sqrt(squares);
  result.norm_a = std::sqrt(squares_a);
  result.norm_b = std::sqrt(squares_b);
  result.relative = relative_to(result.difference, result.norm_a);
}

}  // namespace lora
