#include "ops/numbers/tally.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

namespace lora::numbers {
namespace {

constexpr std::int64_t kRun = 4096;
constexpr std::int64_t kPiece = std::int64_t{1} << 21;

double total(const std::array<double, kLanes>& lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

float smallest_normal_of(DType dtype) {
  return dtype == DType::f16 ? 0x1p-14F : std::numeric_limits<float>::min();
}

// The same sums as the kernels', for runs with values that are not finite and for f64.
template <typename T>
void scan_carefully(const T* values, std::int64_t count, T smallest_normal, std::int64_t index,
                    Tally& tally) {
  Scan& scan = tally.scan;
  for (std::int64_t i = 0; i < count; ++i) {
    const T value = values[i];
    if (!std::isfinite(value)) {
      (std::isnan(value) ? tally.nan_count : tally.inf_count) += 1;
      if (tally.first_non_finite < 0 || index + i < tally.first_non_finite)
        tally.first_non_finite = index + i;
      continue;
    }
    const double x = value;
    scan.zeros += value == 0 ? 1 : 0;
    scan.small += std::fabs(value) < smallest_normal ? 1 : 0;
    scan.min = std::min(scan.min, x);
    scan.max = std::max(scan.max, x);
    const double above = x - scan.shift;
    const auto lane = static_cast<std::size_t>(i) % kLanes;
    scan.sum[lane] += above;
    scan.squares[lane] += above * above;
  }
}

template <typename T>
bool has_value(const T* values, std::int64_t count) {
  return std::any_of(values, values + count, [](T value) { return value != 0; });
}

bool is_aligned(const std::byte* data, std::size_t alignment) {
  return reinterpret_cast<std::uintptr_t>(data) % alignment == 0;
}

}  // namespace

MatrixView::MatrixView(const Tensor& tensor)
    : dtype(tensor.dtype), data(tensor.bytes.data()), has_rows(tensor.shape.size() >= 2) {
  const std::int64_t count = tensor.numel();
  rows = tensor.shape.empty() ? 1 : tensor.shape[0];
  columns = rows == 0 ? 0 : count / rows;
  std::array<double, 1> first{};
  // Also refuses other dtypes when there is nothing to read.
  widen(dtype, data, std::span(first.data(), count == 0 ? 0 : 1));
  shift = std::isfinite(first[0]) ? first[0] : 0;
}

const std::byte* MatrixView::at(std::int64_t row, std::int64_t column) const {
  return data + static_cast<std::size_t>(row * columns + column) * bits_of(dtype) / 8;
}

RunReader::RunReader(const MatrixView& matrix, std::int64_t first_row, std::int64_t rows)
    : matrix_(matrix), smallest_normal_(smallest_normal_of(matrix.dtype)), has_tally_(true) {
  tally_.scan.shift = matrix.shift;
  tally_.first_row = first_row;
  if (matrix.has_rows) tally_.is_used.assign(static_cast<std::size_t>(rows), 0);
}

RunReader::RunReader(const MatrixView& matrix)
    : matrix_(matrix), smallest_normal_(smallest_normal_of(matrix.dtype)), has_tally_(false) {}

template <typename T>
void RunReader::count_run(const T* values, std::int64_t row, std::int64_t column,
                          std::int64_t count) {
  const std::int64_t zeros_before = tally_.scan.zeros;
  const std::int64_t index = row * matrix_.columns + column;
  if constexpr (std::is_same_v<T, float>) {
    Scan next = tally_.scan;
    kernels().scan(values, static_cast<std::size_t>(count), smallest_normal_, next);
    if (next.has_non_finite) {
      scan_carefully(values, count, smallest_normal_, index, tally_);
    } else {
      tally_.scan = next;
    }
  } else {
    scan_carefully(values, count, std::numeric_limits<double>::min(), index, tally_);
  }
  if (!matrix_.has_rows) return;
  const std::int64_t zeros = tally_.scan.zeros - zeros_before;
  if (zeros == count) return;
  char* is_used = tally_.is_used.data() + (row - tally_.first_row);
  const std::int64_t rows = std::max<std::int64_t>(1, count / matrix_.columns);
  for (std::int64_t i = 0; i < rows; ++i)
    if (rows == 1 || zeros == 0 || has_value(values + i * matrix_.columns, matrix_.columns))
      is_used[i] = 1;
}

template <typename T>
const T* RunReader::take(std::int64_t row, std::int64_t column, std::int64_t count) {
  const std::byte* source = matrix_.at(row, column);
  const auto size = static_cast<std::size_t>(count);
  const T* values = nullptr;
  if constexpr (std::is_same_v<T, double>) {
    doubles_.resize(size);
    widen(matrix_.dtype, source, std::span(doubles_.data(), size));
    values = doubles_.data();
  } else if (matrix_.dtype == DType::f32 && is_aligned(source, alignof(float))) {
    values = reinterpret_cast<const float*>(source);
  } else {
    floats_.resize(size);
    if (matrix_.dtype == DType::f16) {
      kernels().widen_f16(source, size, floats_.data());
    } else if (matrix_.dtype == DType::bf16) {
      kernels().widen_bf16(source, size, floats_.data());
    } else {
      std::memcpy(floats_.data(), source, size * sizeof(float));
    }
    values = floats_.data();
  }
  if (has_tally_) count_run(values, row, column, count);
  return values;
}

template const float* RunReader::take(std::int64_t, std::int64_t, std::int64_t);
template const double* RunReader::take(std::int64_t, std::int64_t, std::int64_t);

std::int64_t rows_at_once(const MatrixView& matrix) {
  return std::max<std::int64_t>(1, kPiece / std::max<std::int64_t>(1, matrix.columns));
}

Tally tally_rows(const MatrixView& matrix, std::int64_t first_row, std::int64_t rows) {
  RunReader reader(matrix, first_row, rows);
  const auto take = [&](std::int64_t row, std::int64_t column, std::int64_t count) {
    if (matrix.dtype == DType::f64) {
      reader.take<double>(row, column, count);
    } else {
      reader.take<float>(row, column, count);
    }
  };
  if (matrix.columns == 0) return reader.finish();
  const std::int64_t at_once = std::max<std::int64_t>(1, kRun / matrix.columns);
  const std::int64_t end = first_row + rows;
  for (std::int64_t row = first_row; row < end; row += at_once) {
    if (at_once > 1) {
      take(row, 0, std::min(at_once, end - row) * matrix.columns);
      continue;
    }
    for (std::int64_t column = 0; column < matrix.columns; column += kRun)
      take(row, column, std::min(kRun, matrix.columns - column));
  }
  return reader.finish();
}

TensorStatistics join(const MatrixView& matrix, std::span<const Tally> tallies) {
  TensorStatistics result;
  std::array<double, kLanes> sum{}, squares{};
  std::vector<char> is_used(matrix.has_rows ? static_cast<std::size_t>(matrix.rows) : 0, 0);
  double min = std::numeric_limits<double>::infinity();
  double max = -min;
  std::int64_t zeros = 0;
  for (const Tally& tally : tallies) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      sum[lane] += tally.scan.sum[lane];
      squares[lane] += tally.scan.squares[lane];
    }
    min = std::min(min, tally.scan.min);
    max = std::max(max, tally.scan.max);
    zeros += tally.scan.zeros;
    result.denormal_count += tally.scan.small - tally.scan.zeros;
    result.nan_count += tally.nan_count;
    result.inf_count += tally.inf_count;
    if (tally.first_non_finite >= 0 &&
        (result.first_non_finite < 0 || tally.first_non_finite < result.first_non_finite))
      result.first_non_finite = tally.first_non_finite;
    for (std::size_t row = 0; row < tally.is_used.size(); ++row)
      if (tally.is_used[row] != 0) is_used[static_cast<std::size_t>(tally.first_row) + row] = 1;
  }
  const std::int64_t count = matrix.rows * matrix.columns;
  result.count = count - result.nan_count - result.inf_count;
  result.is_all_zero = zeros == count;
  result.rows = static_cast<std::int64_t>(is_used.size());
  result.zero_rows = std::count(is_used.begin(), is_used.end(), 0);
  const auto last = std::find_if(is_used.rbegin(), is_used.rend(), [](char used) { return used; });
  result.zero_tail_rows = last - is_used.rbegin();
  if (result.count == 0) return result;
  const auto n = static_cast<double>(result.count);
  const double above = total(sum);
  const double shift = matrix.shift;
  result.mean = shift + above / n;
  result.min = min;
  result.max = max;
  // sum of x^2 from the sums of x - shift; shift is one of the values, so its square is no larger
  // than the result and nothing is lost.
  result.norm = std::sqrt(std::max(0.0, total(squares) + 2 * shift * above + n * shift * shift));
  const double deviations = std::max(0.0, total(squares) - above * above / n);
  result.std = result.count > 1 ? std::sqrt(deviations / (n - 1)) : 0;
  return result;
}

}  // namespace lora::numbers
