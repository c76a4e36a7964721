#include "ops/numbers/gram.h"

#include <algorithm>

namespace lora::numbers {
namespace {

constexpr std::int64_t kBlock = 8;
// A panel of 128 KB is read from the second level of the cache, and the part of it that one tile
// walks along (two blocks of `step` vectors, revisited by every tile) from the first.
constexpr std::int64_t kPanelValues = 16 * 1024;
constexpr std::int64_t kStepValues = 2 * 1024;
constexpr std::int64_t kLongestPanel = 256;

std::int64_t clamp_step(std::int64_t values, std::int64_t width) {
  return std::clamp<std::int64_t>(values / width / kBlock * kBlock, kBlock, kLongestPanel);
}

}  // namespace

std::int64_t rank_of(const MatrixView& factor, Side side) {
  return side == Side::rows ? factor.rows : factor.columns;
}

std::int64_t length_of(const MatrixView& factor, Side side) {
  return side == Side::rows ? factor.columns : factor.rows;
}

Panel::Panel(std::int64_t rank)
    : rank_(rank),
      blocks_((rank + kBlock - 1) / kBlock),
      capacity_(clamp_step(kPanelValues, blocks_ * kBlock)),
      values_(static_cast<std::size_t>(blocks_ * kBlock * capacity_), 0.0) {}

template <typename T>
void Panel::fill_as(const MatrixView& factor, Side side, std::int64_t first, RunReader& reader) {
  if (side == Side::rows) {
    for (std::int64_t i = 0; i < rank_; ++i) {
      const T* row = reader.take<T>(i, first, count_);
      double* out = values_.data() + i / kBlock * capacity_ * kBlock + i % kBlock;
      for (std::int64_t k = 0; k < count_; ++k) out[k * kBlock] = row[k];
    }
    return;
  }
  const T* row = reader.take<T>(first, 0, count_ * factor.columns);
  for (std::int64_t k = 0; k < count_; ++k, row += rank_) {
    double* out = values_.data() + k * kBlock;
    std::int64_t i = 0;
    for (; i + kBlock <= rank_; i += kBlock, out += capacity_ * kBlock)
      for (std::int64_t lane = 0; lane < kBlock; ++lane) out[lane] = row[i + lane];
    for (std::int64_t lane = 0; i + lane < rank_; ++lane) out[lane] = row[i + lane];
  }
}

void Panel::fill(const MatrixView& factor, Side side, std::int64_t first, std::int64_t count,
                 RunReader& reader) {
  count_ = count;
  if (factor.dtype == DType::f64) {
    fill_as<double>(factor, side, first, reader);
  } else {
    fill_as<float>(factor, side, first, reader);
  }
}

void Panel::subtract(const Panel& left, const Panel& right,
                     const std::vector<double>& coefficients) {
  count_ = left.count_;
  const std::int64_t inner = right.blocks_ * kBlock;
  std::vector<double> negated(static_cast<std::size_t>(blocks_ * inner * kBlock), 0.0);
  for (std::int64_t i = 0; i < rank_; ++i)
    for (std::int64_t j = 0; j < right.rank_; ++j)
      negated[static_cast<std::size_t>((i / kBlock * inner + j) * kBlock + i % kBlock)] =
          -coefficients[static_cast<std::size_t>(i * right.rank_ + j)];
  // Eight vectors of `right` at a time, rank rows first: the layout the kernel sums over.
  std::vector<double> turned(static_cast<std::size_t>(inner * kBlock), 0.0);
  for (std::int64_t k = 0; k < count_; k += kBlock) {
    const std::int64_t some = std::min(kBlock, count_ - k);
    for (std::int64_t j = 0; j < inner; ++j)
      for (std::int64_t lane = 0; lane < kBlock; ++lane)
        turned[static_cast<std::size_t>(j * kBlock + lane)] =
            lane < some ? right.block(j / kBlock)[(k + lane) * kBlock + j % kBlock] : 0;
    for (std::int64_t i = 0; i < blocks_; ++i) {
      double tile[kBlock * kBlock] = {};
      std::copy_n(left.block(i) + k * kBlock, some * kBlock, tile);
      kernels().multiply(turned.data(), negated.data() + i * inner * kBlock,
                         static_cast<std::size_t>(inner), tile, kBlock);
      std::copy_n(tile, some * kBlock, values_.data() + i * capacity_ * kBlock + k * kBlock);
    }
  }
}

Gram::Gram(std::int64_t left_rank, std::int64_t right_rank)
    : rows(left_rank),
      columns(right_rank),
      stride((right_rank + kBlock - 1) / kBlock * kBlock),
      products(static_cast<std::size_t>((left_rank + kBlock - 1) / kBlock * kBlock * stride), 0.0),
      sums(static_cast<std::size_t>(stride), 0.0) {}

void Gram::add(const Panel& panel) {
  const std::int64_t step = clamp_step(kStepValues, panel.blocks() * kBlock);
  const Kernels& level = kernels();
  for (std::int64_t k = 0; k < panel.count(); k += step) {
    const auto count = static_cast<std::size_t>(std::min(step, panel.count() - k));
    for (std::int64_t i = 0; i < panel.blocks(); ++i) {
      const double* left = panel.block(i) + k * kBlock;
      for (std::int64_t j = i; j < panel.blocks(); ++j)
        level.multiply(left, panel.block(j) + k * kBlock, count,
                       products.data() + i * kBlock * stride + j * kBlock,
                       static_cast<std::size_t>(stride));
      level.add_rows(left, count, sums.data() + i * kBlock);
    }
  }
}

void Gram::add(const Panel& left, const Panel& right) {
  const std::int64_t step = clamp_step(kStepValues, (left.blocks() + right.blocks()) * kBlock);
  const Kernels& level = kernels();
  for (std::int64_t k = 0; k < left.count(); k += step) {
    const auto count = static_cast<std::size_t>(std::min(step, left.count() - k));
    for (std::int64_t i = 0; i < left.blocks(); ++i)
      for (std::int64_t j = 0; j < right.blocks(); ++j)
        level.multiply(left.block(i) + k * kBlock, right.block(j) + k * kBlock, count,
                       products.data() + i * kBlock * stride + j * kBlock,
                       static_cast<std::size_t>(stride));
  }
}

void Gram::mirror() {
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < i; ++j)
      products[static_cast<std::size_t>(i * stride + j)] =
          products[static_cast<std::size_t>(j * stride + i)];
}

Gram& Gram::operator+=(const Gram& other) {
  for (std::size_t i = 0; i < products.size(); ++i) products[i] += other.products[i];
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += other.sums[i];
  return *this;
}

FactorSums sum_vectors(const MatrixView& factor, Side side, std::int64_t first,
                       std::int64_t count) {
  const std::int64_t rank = rank_of(factor, side);
  // Columns of A touch all its rows, rows of B are rows.
  RunReader reader(factor, side == Side::rows ? 0 : first, side == Side::rows ? rank : count);
  FactorSums result{Gram(rank, rank), {}};
  Panel panel(rank);
  for (std::int64_t k = first; k < first + count; k += panel.capacity()) {
    panel.fill(factor, side, k, std::min(panel.capacity(), first + count - k), reader);
    result.gram.add(panel);
  }
  result.tally = reader.finish();
  return result;
}

}  // namespace lora::numbers
