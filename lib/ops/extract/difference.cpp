#include "ops/extract/difference.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "lora/base/fetch_ahead.h"
#include "ops/numbers/kernels.h"

namespace lora::extraction {
namespace {

constexpr std::int64_t kWidth = numbers::kPanelColumns;

std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

const std::byte* row_of(const Tensor& tensor, std::int64_t row) {
  return tensor.bytes.data() + size(row * tensor.shape[1]) * bits_of(tensor.dtype) / 8;
}

void widen_row(const Tensor& tensor, std::int64_t row, std::vector<float>& out) {
  const std::byte* source = row_of(tensor, row);
  if (tensor.dtype == DType::bf16)
    numbers::kernels().widen_bf16(source, out.size(), out.data());
  else if (tensor.dtype == DType::f16)
    numbers::kernels().widen_f16(source, out.size(), out.data());
  else
    widen(tensor.dtype, source, std::span(out));
}

// One row of tuned - base. F64 is subtracted before it is rounded.
class RowReader {
 public:
  RowReader(const Tensor& base, const Tensor& tuned)
      : base_(base),
        tuned_(tuned),
        is_wide_(base.dtype == DType::f64 || tuned.dtype == DType::f64),
        a_(size(base.shape[1])),
        b_(a_.size()) {
    if (is_wide_) wide_a_.resize(a_.size()), wide_b_.resize(a_.size());
  }

  const std::vector<float>& take(std::int64_t row) {
    if (is_wide_) {
      widen(base_.dtype, row_of(base_, row), std::span(wide_a_));
      widen(tuned_.dtype, row_of(tuned_, row), std::span(wide_b_));
      for (std::size_t j = 0; j < a_.size(); ++j)
        b_[j] = static_cast<float>(wide_b_[j] - wide_a_[j]);
      return b_;
    }
    fetch(base_, row + kAhead);
    fetch(tuned_, row + kAhead);
    if (base_.dtype == DType::f32 && tuned_.dtype == DType::f32) {
      subtract(row_of(base_, row), row_of(tuned_, row));
      return b_;
    }
    widen_row(base_, row, a_);
    widen_row(tuned_, row, b_);
    for (std::size_t j = 0; j < a_.size(); ++j) b_[j] -= a_[j];
    return b_;
  }

 private:
  static constexpr std::int64_t kAhead = 2;

  // f32 of any alignment.
  void subtract(const std::byte* base, const std::byte* tuned) {
    for (std::size_t j = 0; j < b_.size(); ++j) {
      float a, b;
      std::memcpy(&a, base + 4 * j, 4);
      std::memcpy(&b, tuned + 4 * j, 4);
      b_[j] = b - a;
    }
  }

  void fetch(const Tensor& tensor, std::int64_t row) const {
    if (row < tensor.shape[0])
      fetch_ahead({row_of(tensor, row), a_.size() * bits_of(tensor.dtype) / 8});
  }

  const Tensor& base_;
  const Tensor& tuned_;
  bool is_wide_;
  std::vector<float> a_, b_;
  std::vector<double> wide_a_, wide_b_;
};

void fill(RowReader& reader, numbers::PanelMatrix& values) {
  for (std::int64_t i = 0; i < values.rows(); ++i) {
    const std::vector<float>& row = reader.take(i);
    for (std::int64_t p = 0; p < values.panels(); ++p) {
      const std::int64_t count = std::min(kWidth, values.columns() - p * kWidth);
      std::copy_n(row.data() + p * kWidth, count, values.panel(p) + i * kWidth);
    }
  }
}

void fill_transposed(RowReader& reader, numbers::PanelMatrix& values) {
  std::vector<float> block(size(kWidth * values.rows()));
  for (std::int64_t p = 0; p < values.panels(); ++p) {
    const std::int64_t count = std::min(kWidth, values.columns() - p * kWidth);
    for (std::int64_t j = 0; j < count; ++j) {
      const std::vector<float>& row = reader.take(p * kWidth + j);
      std::copy(row.begin(), row.end(), block.begin() + j * values.rows());
    }
    for (std::int64_t i = 0; i < values.rows(); ++i)
      for (std::int64_t j = 0; j < count; ++j)
        values.panel(p)[i * kWidth + j] = block[size(j * values.rows() + i)];
  }
}

}  // namespace

Difference difference_of(const Tensor& base, const Tensor& tuned) {
  Difference out;
  out.is_transposed = base.shape[0] < base.shape[1];
  RowReader reader(base, tuned);
  const std::int64_t rows = std::max(base.shape[0], base.shape[1]);
  const std::int64_t columns = std::min(base.shape[0], base.shape[1]);
  out.values = rows % kWidth == 0 && columns % kWidth == 0
                   ? numbers::PanelMatrix::unset(rows, columns)
                   : numbers::PanelMatrix(rows, columns);
  if (out.is_transposed)
    fill_transposed(reader, out.values);
  else
    fill(reader, out.values);
  out.squared_norm = out.values.squared_norm();
  return out;
}

double squared_rounding_of(const Tensor& tensor) {
  int precision = 24, least_exponent = -126;
  if (tensor.dtype == DType::f64) return 0;
  if (tensor.dtype == DType::bf16) precision = 8;
  if (tensor.dtype == DType::f16) precision = 11, least_exponent = -14;
  const float least = std::ldexp(1.0F, least_exponent);
  std::vector<float> row(size(tensor.shape[1]));
  double total = 0;
  for (std::int64_t i = 0; i < tensor.shape[0]; ++i) {
    widen_row(tensor, i, row);
    double sum = 0;
    for (const float value : row) {
      // The power of two at or below the magnitude.
      const float power = std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) & 0x7F800000U);
      const double step = std::max(power, least);
      sum += step * step;
    }
    total += sum;
  }
  return total * std::ldexp(1.0, 2 * (1 - precision)) / 12;
}

std::vector<std::int64_t> changed_rows(const Tensor& base, const Tensor& tuned) {
  std::vector<std::int64_t> rows;
  RowReader reader(base, tuned);
  const std::size_t width = size(base.shape[1]) * bits_of(base.dtype) / 8;
  for (std::int64_t i = 0; i < base.shape[0]; ++i) {
    if (base.dtype == tuned.dtype && std::memcmp(row_of(base, i), row_of(tuned, i), width) == 0)
      continue;
    const std::vector<float>& row = reader.take(i);
    if (std::any_of(row.begin(), row.end(), [](float value) { return value != 0; }))
      rows.push_back(i);
  }
  return rows;
}

}  // namespace lora::extraction
