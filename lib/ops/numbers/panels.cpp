#include "ops/numbers/panels.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

#include "ops/numbers/split_gram.h"

namespace lora::numbers {
namespace {

constexpr std::int64_t kWidth = kPanelColumns;
constexpr std::int64_t kTile = kTileRows;
// Rows summed in one chain; two pieces of that many rows stay in the first-level cache.
constexpr std::int64_t kChain = 128;
constexpr double kUnit = 0x1p-24;

std::int64_t padded(std::int64_t value) { return (value + kWidth - 1) / kWidth * kWidth; }

std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

// The 32 x 32 block at `from` transposed to `to`, four by four.
void transpose_block(const float* from, float* to) {
  typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
  const auto at = [](auto* place) { return reinterpret_cast<Four*>(const_cast<float*>(place)); };
  for (std::int64_t i = 0; i < kWidth; i += 4)
    for (std::int64_t j = 0; j < kWidth; j += 4) {
      const float* in = from + i * kWidth + j;
      const Four a = *at(in), b = *at(in + kWidth), c = *at(in + 2 * kWidth);
      const Four d = *at(in + 3 * kWidth);
      const Four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
      const Four cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
      const Four ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
      const Four cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
      float* out = to + j * kWidth + i;
      *at(out) = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
      *at(out + kWidth) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
      *at(out + 2 * kWidth) = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
      *at(out + 3 * kWidth) = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
    }
}

}  // namespace

PanelMatrix PanelMatrix::unset(std::int64_t rows, std::int64_t columns) {
  PanelMatrix out;
  out.rows_ = rows;
  out.columns_ = columns;
  out.padded_ = padded(rows);
  out.panels_ = padded(columns) / kWidth;
  out.values_.resize(size(out.padded_ * out.panels_ * kWidth));
  return out;
}

PanelMatrix::PanelMatrix(std::int64_t rows, std::int64_t columns)
    : PanelMatrix(unset(rows, columns)) {
  std::fill(values_.begin(), values_.end(), 0.0F);
}

PanelMatrix PanelMatrix::transposed() const {
  PanelMatrix out = unset(columns_, rows_);
  for (std::int64_t p = 0; p < panels_; ++p)
    for (std::int64_t q = 0; q < out.panels_; ++q)
      transpose_block(panel(p) + q * kWidth * kWidth, out.panel(q) + p * kWidth * kWidth);
  return out;
}

double PanelMatrix::squared_norm() const {
  double sums[kWidth] = {};
  for (std::int64_t p = 0; p < panels_; ++p) panel_kernels().squares(panel(p), size(padded_), sums);
  return std::accumulate(std::begin(sums), std::end(sums), 0.0);
}

void PanelMatrix::scale(int exponent) {
  if (exponent != 0)
    for (float& value : values_) value = std::ldexp(value, exponent);
}

void multiply(const PanelMatrix& left, const PanelMatrix& right, PanelMatrix& out) {
  const PanelKernels& kernels = panel_kernels();
  for (std::int64_t p = 0; p < out.panels(); ++p)
    for (std::int64_t i = 0; i < out.padded_rows(); i += kTile)
      kernels.rows({left.panel(0) + i * kWidth, size(left.padded_rows() * kWidth), right.panel(p),
                    size(kWidth * kWidth), size(kWidth), size(left.panels()),
                    out.panel(p) + i * kWidth, Store::set});
}

void multiply_transposed(const PanelMatrix& left, const PanelMatrix& right, PanelMatrix& out) {
  const PanelKernels& kernels = panel_kernels();
  for (std::int64_t p = 0; p < out.panels(); ++p)
    for (std::int64_t q = 0; q < left.panels(); ++q)
      for (std::int64_t row = 0; row < left.padded_rows(); row += kChain)
        for (std::int64_t j = 0; j < kWidth; j += kTile)
          kernels.columns({left.panel(q) + row * kWidth + j, 0, right.panel(p) + row * kWidth, 0,
                           size(std::min(kChain, left.padded_rows() - row)), 1,
                           out.panel(p) + (q * kWidth + j) * kWidth,
                           row == 0 ? Store::set : Store::add});
}

void subtract_product(const PanelMatrix& left, const PanelMatrix& right, PanelMatrix& values) {
  const PanelKernels& kernels = panel_kernels();
  const PanelMatrix flat = right.transposed();
  for (std::int64_t p = 0; p < values.panels(); ++p)
    for (std::int64_t i = 0; i < values.padded_rows(); i += kTile)
      kernels.rows({left.panel(0) + i * kWidth, size(left.padded_rows() * kWidth), flat.panel(p),
                    size(kWidth * kWidth), size(kWidth), size(left.panels()),
                    values.panel(p) + i * kWidth, Store::subtract});
}

PanelMatrix multiply(const PanelMatrix& left, const Matrix& right) {
  PanelMatrix narrow(right.rows(), right.cols());
  for (std::int64_t i = 0; i < right.rows(); ++i)
    for (std::int64_t j = 0; j < right.cols(); ++j)
      narrow.at(i, j) = static_cast<float>(right(i, j));
  PanelMatrix out = PanelMatrix::unset(left.rows(), right.cols());
  multiply(left, narrow, out);
  return out;
}

Matrix gram_of(const PanelMatrix& left, const PanelMatrix& right) {
  const PanelKernels& kernels = panel_kernels();
  Matrix out(left.columns(), right.columns());
  std::vector<double> sums(size(kWidth * kWidth));
  for (std::int64_t p = 0; p < left.panels(); ++p)
    for (std::int64_t q = 0; q < right.panels(); ++q) {
      std::fill(sums.begin(), sums.end(), 0.0);
      kernels.gram(left.panel(p), right.panel(q), size(left.padded_rows()), sums.data());
      for (std::int64_t i = p * kWidth; i < std::min((p + 1) * kWidth, left.columns()); ++i)
        for (std::int64_t j = q * kWidth; j < std::min((q + 1) * kWidth, right.columns()); ++j)
          out(i, j) = sums[size((i % kWidth) * kWidth + j % kWidth)];
    }
  return out;
}

Matrix gram_of(const PanelMatrix& values) { return gram_of(values, values); }

PanelMatrix chained_gram(const PanelMatrix& values) {
  const PanelKernels& kernels = panel_kernels();
  PanelMatrix out(values.columns(), values.columns());
  const std::int64_t rows = values.padded_rows();
  for (std::int64_t row = 0; row < rows; row += kChain)
    for (std::int64_t q = 0; q < values.panels(); ++q)
      for (std::int64_t p = q; p < values.panels(); ++p)
        for (std::int64_t j = 0; j < kWidth; j += kTile)
          kernels.columns({values.panel(p) + row * kWidth + j, 0, values.panel(q) + row * kWidth, 0,
                           size(std::min(kChain, rows - row)), 1,
                           out.panel(q) + (p * kWidth + j) * kWidth,
                           row == 0 ? Store::set : Store::add});
  return out;
}

double chained_gram_terms(std::int64_t rows) {
  return static_cast<double>(std::min(rows, kChain) + (rows + kChain - 1) / kChain);
}

PanelMatrix lower_gram(const PanelMatrix& values) {
  return has_matrix_units() ? split_gram(values) : chained_gram(values);
}

double lower_gram_terms(std::int64_t rows) {
  return has_matrix_units() ? split_gram_terms(rows) : chained_gram_terms(rows);
}

void multiply_symmetric(const PanelMatrix& lower, const PanelMatrix& right, PanelMatrix& out) {
  const PanelKernels& kernels = panel_kernels();
  const std::int64_t rows = lower.padded_rows();
  for (std::int64_t p = 0; p < out.panels(); ++p) {
    for (std::int64_t i = 0; i < rows; i += kTile)
      kernels.rows({lower.panel(0) + i * kWidth, size(rows * kWidth), right.panel(p),
                    size(kWidth * kWidth), size(kWidth), size(i / kWidth + 1),
                    out.panel(p) + i * kWidth, Store::set});
    for (std::int64_t q = 0; q < lower.panels(); ++q)
      for (std::int64_t row = (q + 1) * kWidth; row < rows; row += kChain)
        for (std::int64_t j = 0; j < kWidth; j += kTile)
          kernels.columns({lower.panel(q) + row * kWidth + j, 0, right.panel(p) + row * kWidth, 0,
                           size(std::min(kChain, rows - row)), 1,
                           out.panel(p) + (q * kWidth + j) * kWidth, Store::add});
  }
}

namespace {

// The 32 x 32 block on the diagonal: its factor in place, and the transposed inverse of that.
bool factor_block(float* block, std::vector<float>& inverse) {
  // Along rows, which lie together.
  double lower[kWidth][kWidth], inverted[kWidth][kWidth] = {}, column[kWidth];
  for (std::int64_t i = 0; i < kWidth; ++i)
    for (std::int64_t j = 0; j < kWidth; ++j) lower[i][j] = block[i * kWidth + j];
  for (std::int64_t j = 0; j < kWidth; ++j) {
    if (!(lower[j][j] > 0)) return false;
    lower[j][j] = std::sqrt(lower[j][j]);
    for (std::int64_t i = j + 1; i < kWidth; ++i) {
      lower[j][i] = 0;
      column[i] = lower[i][j] /= lower[j][j];
      for (std::int64_t t = j + 1; t <= i; ++t) lower[i][t] -= column[i] * column[t];
    }
  }
  for (std::int64_t i = 0; i < kWidth; ++i) {
    inverted[i][i] = 1;
    for (std::int64_t t = 0; t < i; ++t)
      for (std::int64_t j = 0; j <= t; ++j) inverted[i][j] -= lower[i][t] * inverted[t][j];
    for (std::int64_t j = 0; j <= i; ++j) inverted[i][j] /= lower[i][i];
  }
  for (std::int64_t i = 0; i < kWidth; ++i)
    for (std::int64_t j = 0; j < kWidth; ++j) {
      block[i * kWidth + j] = static_cast<float>(lower[i][j]);
      inverse[size(j * kWidth + i)] = static_cast<float>(inverted[i][j]);
    }
  return true;
}

}  // namespace

bool is_below(const PanelMatrix& matrix, double shift) {
  const PanelKernels& kernels = panel_kernels();
  const std::int64_t n = matrix.panels();
  const std::int64_t rows = matrix.padded_rows();
  PanelMatrix lower = PanelMatrix::unset(matrix.rows(), matrix.columns());
  for (std::int64_t p = 0; p < n; ++p) {
    const std::int64_t first = p * kWidth * kWidth;
    const float* from = matrix.panel(p);
    float* to = lower.panel(p);
    for (std::int64_t i = first; i < rows * kWidth; ++i) to[i] = -from[i];
    for (std::int64_t i = 0; i < kWidth; ++i)
      to[first + i * kWidth + i] += static_cast<float>(shift);
  }
  std::vector<float> inverse(size(kWidth * kWidth)), flat(size(kWidth * kWidth));
  float below[kTile * kWidth];
  for (std::int64_t p = 0; p < n; ++p) {
    float* panel = lower.panel(p);
    if (!factor_block(panel + p * kWidth * kWidth, inverse)) return false;
    for (std::int64_t i = (p + 1) * kWidth; i < rows; i += kTile) {
      // Not in place: a level of small registers stores columns before it has read all.
      std::copy_n(panel + i * kWidth, kTile * kWidth, below);
      kernels.rows({below, 0, inverse.data(), 0, size(kWidth), 1, panel + i * kWidth, Store::set});
    }
    for (std::int64_t q = p + 1; q < n; ++q) {
      transpose_block(panel + q * kWidth * kWidth, flat.data());
      for (std::int64_t i = q * kWidth; i < rows; i += kTile)
        kernels.rows({panel + i * kWidth, 0, flat.data(), 0, size(kWidth), 1,
                      lower.panel(q) + i * kWidth, Store::subtract});
    }
  }
  return true;
}

double cholesky_allowance(std::int64_t n) {
  // Backward error of a blocked factorisation, |error| <= terms u |L| |L|^T, whose norm is at most
  // the trace, n shifts; twice for the inverse of the diagonal blocks.
  const double terms = 2 * (static_cast<double>(kWidth) + static_cast<double>(n) / kWidth + 2);
  return terms * kUnit * static_cast<double>(n);
}

}  // namespace lora::numbers
