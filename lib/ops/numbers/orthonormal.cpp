#include "ops/numbers/orthonormal.h"

#include <algorithm>
#include <cmath>

#include "lora/base/random.h"

namespace lora::numbers {
namespace {

constexpr std::int64_t kWidth = kPanelColumns;

std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

// The inverse of the triangle R with values = Q R; columns that the earlier ones span become zero.
// `is_ill` when a second turn is needed to make Q orthonormal in f32.
Matrix inverse_triangle(const Matrix& gram, bool& is_ill) {
  constexpr double kVanished = 1e-13, kIll = 1e-3;
  const Eigen::Index n = gram.rows();
  Matrix lower = Matrix::Zero(n, n);
  std::vector<bool> is_gone(static_cast<std::size_t>(n));
  for (Eigen::Index j = 0; j < n; ++j) {
    const double pivot = gram(j, j) - lower.row(j).head(j).squaredNorm();
    const bool gone = !(pivot > kVanished * gram(j, j));
    is_gone[static_cast<std::size_t>(j)] = gone;
    is_ill = is_ill || (!gone && pivot < kIll * gram(j, j));
    if (gone) {
      lower.row(j).setZero();
      lower(j, j) = 1;
      continue;
    }
    lower(j, j) = std::sqrt(pivot);
    for (Eigen::Index i = j + 1; i < n; ++i)
      lower(i, j) = (gram(i, j) - lower.row(i).head(j).dot(lower.row(j).head(j))) / lower(j, j);
  }
  Matrix inverse = lower.triangularView<Eigen::Lower>().solve(Matrix::Identity(n, n)).transpose();
  for (Eigen::Index j = 0; j < n; ++j)
    if (is_gone[static_cast<std::size_t>(j)]) inverse.col(j).setZero();
  return inverse;
}

}  // namespace

PanelMatrix random_signs(std::int64_t rows, std::int64_t columns, const std::string& name) {
  const CounterRandom random(0, stream_of("truncate/" + name));
  PanelMatrix out(rows, columns);
  for (std::int64_t p = 0; p < out.panels(); ++p)
    for (std::int64_t i = 0; i < rows; i += 4) {
      const auto words = random.block(static_cast<std::uint64_t>((p * out.padded_rows() + i) / 4));
      for (std::int64_t row = i; row < std::min(rows, i + 4); ++row)
        for (std::int64_t j = 0; j < std::min(kWidth, columns - p * kWidth); ++j)
          out.panel(p)[row * kWidth + j] = (words[size(row - i)] >> j & 1U) != 0 ? 1.0F : -1.0F;
    }
  return out;
}

PanelMatrix orthonormal(const PanelMatrix& values) {
  bool is_ill = false;
  PanelMatrix q = multiply(values, inverse_triangle(gram_of(values), is_ill));
  if (!is_ill) return q;
  return multiply(q, inverse_triangle(gram_of(q), is_ill));
}

}  // namespace lora::numbers
