#include "ops/numbers/combine.h"

#include <algorithm>

namespace lora::numbers {
namespace {

constexpr std::int64_t kBlock = 8;
// Vectors of one stretch: with 64 rank rows 128 KB, which every block of results reads again.
constexpr std::int64_t kStretchValues = 16 * 1024;

// A stretch of vectors as the kernel wants its left side: groups of 8 vectors, rank rows first.
class Stretch {
 public:
  explicit Stretch(std::int64_t rank)
      : rank_(rank),
        capacity_(
            std::max(kBlock, kStretchValues / std::max<std::int64_t>(1, rank) / kBlock * kBlock)),
        values_(static_cast<std::size_t>(rank * capacity_)) {}

  std::int64_t capacity() const { return capacity_; }
  const double* group(std::int64_t index) const { return values_.data() + index * rank_ * kBlock; }

  template <typename T>
  void fill(const MatrixView& factor, Side side, std::int64_t first, std::int64_t count,
            RunReader& reader) {
    if (count % kBlock != 0)
      std::fill(values_.begin() + count / kBlock * rank_ * kBlock, values_.end(), 0.0);
    if (side == Side::rows) {
      for (std::int64_t i = 0; i < rank_; ++i) {
        const T* row = reader.take<T>(i, first, count);
        for (std::int64_t k = 0; k < count; k += kBlock)
          widen(row + k, 1, std::min(kBlock, count - k), place(k, i));
      }
      return;
    }
    const T* rows = reader.take<T>(first, 0, count * factor.columns);
    for (std::int64_t k = 0; k < count; k += kBlock, rows += kBlock * rank_)
      for (std::int64_t i = 0; i < rank_; ++i)
        widen(rows + i, rank_, std::min(kBlock, count - k), place(k, i));
  }

 private:
  /// Where row `row` of the group that begins with `vector` lies.
  double* place(std::int64_t vector, std::int64_t row) {
    return values_.data() + vector * rank_ + row * kBlock;
  }

  template <typename T>
  static void widen(const T* from, std::int64_t step, std::int64_t count, double* to) {
    if (count == kBlock)
      for (std::int64_t lane = 0; lane < kBlock; ++lane) to[lane] = from[lane * step];
    else
      for (std::int64_t lane = 0; lane < count; ++lane) to[lane] = from[lane * step];
  }

  std::int64_t rank_, capacity_;
  std::vector<double> values_;
};

// Blocks of 8 columns, in each the rank rows one after another.
std::vector<double> in_blocks(const Matrix& coefficients) {
  const Eigen::Index rank = coefficients.rows();
  const Eigen::Index blocks = (coefficients.cols() + kBlock - 1) / kBlock;
  std::vector<double> values(static_cast<std::size_t>(blocks * rank * kBlock), 0.0);
  for (Eigen::Index j = 0; j < coefficients.cols(); ++j)
    for (Eigen::Index i = 0; i < rank; ++i)
      values[static_cast<std::size_t>((j / kBlock * rank + i) * kBlock + j % kBlock)] =
          coefficients(i, j);
  return values;
}

}  // namespace

void combine(const MatrixView& factor, Side side, const Matrix& coefficients, Matrix& sums) {
  const std::int64_t rank = rank_of(factor, side);
  const std::int64_t length = length_of(factor, side);
  if (rank == 0 || length == 0 || sums.cols() == 0) return;
  const std::vector<double> right = in_blocks(coefficients);
  const Kernels& level = kernels();
  RunReader reader(factor);
  Stretch stretch(rank);
  for (std::int64_t first = 0; first < length; first += stretch.capacity()) {
    const std::int64_t count = std::min(stretch.capacity(), length - first);
    if (factor.dtype == DType::f64) {
      stretch.fill<double>(factor, side, first, count, reader);
    } else {
      stretch.fill<float>(factor, side, first, count, reader);
    }
    for (std::int64_t k = 0; k < count; k += kBlock) {
      const std::int64_t some = std::min(kBlock, count - k);
      for (Eigen::Index j = 0; j < sums.cols(); j += kBlock) {
        double tile[kBlock * kBlock] = {};
        level.multiply(stretch.group(k / kBlock), right.data() + j * rank,
                       static_cast<std::size_t>(rank), tile, kBlock);
        const Eigen::Index wide = std::min<Eigen::Index>(kBlock, sums.cols() - j);
        for (Eigen::Index column = 0; column < wide; ++column)
          for (std::int64_t lane = 0; lane < some; ++lane)
            sums(first + k + lane, j + column) += tile[lane * kBlock + column];
      }
    }
  }
}

}  // namespace lora::numbers
