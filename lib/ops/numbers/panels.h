// A f32 matrix in panels of 32 columns, and the products that low-rank algebra needs of it.
//
// Rows and columns are padded with zeros to multiples of 32, so that kernels meet no borders; the
// padding stays zero in every product.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "ops/numbers/panel_kernels.h"
#include "ops/numbers/symmetric.h"

namespace lora::numbers {

class PanelMatrix {
 public:
  PanelMatrix() = default;
  /// Zeros.
  PanelMatrix(std::int64_t rows, std::int64_t columns);
  /// Values that are yet to be set, padding included.
  static PanelMatrix unset(std::int64_t rows, std::int64_t columns);

  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  std::int64_t padded_rows() const { return padded_; }
  std::int64_t panels() const { return panels_; }
  float* panel(std::int64_t index) { return values_.data() + index * padded_ * kWidth; }
  const float* panel(std::int64_t index) const { return values_.data() + index * padded_ * kWidth; }
  float& at(std::int64_t row, std::int64_t column) {
    return panel(column / kWidth)[row * kWidth + column % kWidth];
  }
  float at(std::int64_t row, std::int64_t column) const {
    return panel(column / kWidth)[row * kWidth + column % kWidth];
  }
  PanelMatrix transposed() const;
  double squared_norm() const;
  /// Times 2^exponent.
  void scale(int exponent);

 private:
  // Leaves new values as they are: most matrices are written whole right away.
  struct Unset : std::allocator<float> {
    template <typename>
    struct rebind {
      using other = Unset;
    };
    template <typename T>
    void construct(T* place) {
      ::new (place) T;
    }
    template <typename T, typename... Arguments>
    void construct(T* place, Arguments&&... arguments) {
      ::new (place) T(std::forward<Arguments>(arguments)...);
    }
  };

  static constexpr std::int64_t kWidth = kPanelColumns;
  std::int64_t rows_ = 0, columns_ = 0, padded_ = 0, panels_ = 0;
  std::vector<float, Unset> values_;
};

/// left . right into `out`, which has the shape of the result.
void multiply(const PanelMatrix& left, const PanelMatrix& right, PanelMatrix& out);
/// left^T . right.
void multiply_transposed(const PanelMatrix& left, const PanelMatrix& right, PanelMatrix& out);
/// values -= left . right^T.
void subtract_product(const PanelMatrix& left, const PanelMatrix& right, PanelMatrix& values);
/// The same with a small matrix [left's columns, k]: left . right, rounded to f32.
PanelMatrix multiply(const PanelMatrix& left, const Matrix& right);

/// values^T . values in f64.
Matrix gram_of(const PanelMatrix& values);
/// left^T . right in f64.
Matrix gram_of(const PanelMatrix& left, const PanelMatrix& right);

/// values^T . values in about f32, on and below the diagonal of panels.
PanelMatrix lower_gram(const PanelMatrix& values);
/// Its error: every element is off by at most this many times 2^-24 times the sum of the magnitudes
/// of its products.
double lower_gram_terms(std::int64_t rows);

/// The same by multiply-adds, whatever else the processor has.
PanelMatrix chained_gram(const PanelMatrix& values);
double chained_gram_terms(std::int64_t rows);

/// left . right for a symmetric left of which `lower` holds the lower half.
void multiply_symmetric(const PanelMatrix& lower, const PanelMatrix& right, PanelMatrix& out);

/// True when shift * I - m, where `lower` holds the lower half of m, has a Cholesky factorisation
/// in f32. Then no eigenvalue of m exceeds shift * (1 + cholesky_allowance(n)).
bool is_below(const PanelMatrix& lower, double shift);
double cholesky_allowance(std::int64_t n);

}  // namespace lora::numbers
