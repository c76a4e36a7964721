#include "ops/combine/inner_products.h"

#include <cstring>

#include "ops/numbers/factor_stack.h"

namespace lora::combining {

using numbers::Matrix;

Matrix inner_products(const std::vector<UpdateFactor>& terms) {
  return inner_products(terms, numbers::StackGrams(terms));
}

Matrix inner_products(const std::vector<UpdateFactor>& terms, const numbers::StackGrams& grams) {
  const Matrix products = grams.a.cwiseProduct(grams.b);
  const auto count = static_cast<Eigen::Index>(terms.size());
  Matrix inner(count, count);
  for (Eigen::Index i = 0, row = 0; i < count; ++i) {
    const Eigen::Index rows = terms[static_cast<std::size_t>(i)].a.shape.at(0);
    for (Eigen::Index j = 0, column = 0; j < count; ++j) {
      const Eigen::Index columns = terms[static_cast<std::size_t>(j)].a.shape.at(0);
      inner(i, j) = products.block(row, column, rows, columns).sum();
      column += columns;
    }
    row += rows;
  }
  return inner;
}

UpdateFactor product_of(const Matrix& b, const Matrix& a) {
  using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const auto tensor = [](const Rows& matrix) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(matrix.size()) * sizeof(double));
    std::memcpy(bytes.data(), matrix.data(), bytes.size());
    return Tensor::from_bytes(DType::f64, {matrix.rows(), matrix.cols()}, std::move(bytes));
  };
  UpdateFactor product;
  product.a = tensor(a);
  product.b = tensor(b);
  product.scaling = 1;
  return product;
}

}  // namespace lora::combining
