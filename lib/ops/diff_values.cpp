#include "ops/diff_values.h"

#include <bit>
#include <cmath>
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

void widen_floats(const Tensor& tensor, std::int64_t first, std::span<float> out) {
  const std::byte* source = at(tensor, first);
  if (tensor.dtype == DType::f16) {
    numbers::kernels().widen_f16(source, out.size(), out.data());
  } else if (tensor.dtype == DType::bf16) {
    numbers::kernels().widen_bf16(source, out.size(), out.data());
  } else {
    widen(tensor.dtype, source, out);
  }
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

// Four counters take turns, so that equal neighbours do not wait for each other.
void count_steps(std::span<const std::uint32_t> steps, int dropped_bits, ValuePiece& piece) {
  std::array<std::array<std::int64_t, 33>, 4> counts{};
  std::size_t i = 0;
  for (; i + 4 <= steps.size(); i += 4)
    for (std::size_t lane = 0; lane < 4; ++lane)
      counts[lane][static_cast<std::size_t>(std::bit_width(steps[i + lane]))] += 1;
  for (; i < steps.size(); ++i) counts[0][static_cast<std::size_t>(std::bit_width(steps[i]))] += 1;
  for (const auto& lane : counts)
    for (std::size_t bits = 0; bits < lane.size(); ++bits)
      piece.steps[bits == 0 ? 0 : bits - static_cast<std::size_t>(dropped_bits)] += lane[bits];
}

}  // namespace

DType coarser_of(DType a, DType b) { return precision_of(a) <= precision_of(b) ? a : b; }

ValuePiece compare_values(const Tensor& a, const Tensor& b, std::int64_t first,
                          std::int64_t count) {
  ValuePiece piece;
  numbers::Comparison sums;
  const DType coarser = coarser_of(a.dtype, b.dtype);
  const bool has_kernels = a.dtype == b.dtype && a.dtype != DType::f64;
  std::array<float, kBlock> left, right;
  std::array<std::uint32_t, kBlock> steps;
  for (std::int64_t start = first; start < first + count; start += kBlock) {
    const auto size = static_cast<std::size_t>(std::min(kBlock, first + count - start));
    if (has_kernels) {
      widen_floats(a, start, std::span(left.data(), size));
      widen_floats(b, start, std::span(right.data(), size));
      numbers::Comparison next = sums;
      numbers::compare_kernels().compare(left.data(), right.data(), size, next, steps.data());
      if (!next.has_non_finite) {
        sums = next;
        if (a.dtype == DType::f16)
          numbers::compare_kernels().half_steps(at(a, start), at(b, start), size, steps.data());
        count_steps(std::span(steps.data(), size), a.dtype == DType::bf16 ? 16 : 0, piece);
        continue;
      }
    }
    CarefulBlock(a, b, coarser, start, size).add_to(piece);
  }
  piece.squares += sum_of(sums.squares);
  piece.squares_a += sum_of(sums.squares_a);
  piece.squares_b += sum_of(sums.squares_b);
  piece.largest = std::max(piece.largest, sums.largest);
  piece.changed += sums.changed;
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
