#include "ops/numbers/factor_stack.h"

#include <algorithm>

#include "ops/numbers/combine.h"

namespace lora::numbers {

FactorStack::FactorStack(const std::vector<UpdateFactor>& terms, Side side) : side_(side) {
  for (const UpdateFactor& term : terms) {
    views_.emplace_back(side == Side::rows ? term.a : term.b);
    first_.push_back(rank_);
    rank_ += rank_of(views_.back(), side);
    for (std::int64_t i = first_.back(); i < rank_; ++i)
      scales_.push_back(side == Side::rows ? 1 : term.scaling);
  }
  length_ = length_of(views_.front(), side);
}

Matrix FactorStack::gram() const {
  const std::size_t count = views_.size();
  std::vector<Panel> panels;
  std::vector<RunReader> readers;
  std::vector<Gram> sums;
  std::int64_t step = length_;
  for (const MatrixView& view : views_) {
    panels.emplace_back(rank_of(view, side_));
    readers.emplace_back(view);
    step = std::min(step, panels.back().capacity());
  }
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t j = i; j < count; ++j)
      sums.emplace_back(rank_of(views_[i], side_), rank_of(views_[j], side_));
  for (std::int64_t k = 0; k < length_; k += step) {
    for (std::size_t i = 0; i < count; ++i)
      panels[i].fill(views_[i], side_, k, std::min(step, length_ - k), readers[i]);
    for (std::size_t i = 0, at = 0; i < count; ++i)
      for (std::size_t j = i; j < count; ++j, ++at)
        if (i == j) {
          sums[at].add(panels[i]);
        } else {
          sums[at].add(panels[i], panels[j]);
        }
  }
  Matrix result(rank_, rank_);
  for (std::size_t i = 0, at = 0; i < count; ++i)
    for (std::size_t j = i; j < count; ++j, ++at) {
      if (i == j) sums[at].mirror();
      const Matrix part = matrix_of(sums[at]);
      result.block(first_[i], first_[j], part.rows(), part.cols()) = part;
      result.block(first_[j], first_[i], part.cols(), part.rows()) = part.transpose();
    }
  const Vector scales = scale_vector();
  return scales.asDiagonal() * result * scales.asDiagonal();
}

Matrix FactorStack::combined(const Matrix& coefficients) const {
  Matrix sums = Matrix::Zero(length_, coefficients.cols());
  const Matrix scaled = scale_vector().asDiagonal() * coefficients;
  for (std::size_t i = 0; i < views_.size(); ++i)
    combine(views_[i], side_, scaled.middleRows(first_[i], rank_of(views_[i], side_)), sums);
  return sums;
}

Vector FactorStack::scale_vector() const {
  return Eigen::Map<const Vector>(scales_.data(), static_cast<Eigen::Index>(scales_.size()));
}

}  // namespace lora::numbers
