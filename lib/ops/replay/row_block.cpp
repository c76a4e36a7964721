#include "ops/replay/row_block.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "ops/replay/factors.h"

namespace lora::replay {
namespace {

// f32 elements of one product that stay in the second-level cache.
constexpr std::int64_t kCachedElements = 1 << 16;

std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

const std::byte* row_bytes(const Tensor& tensor, std::int64_t row, std::int64_t columns) {
  return tensor.bytes.data() + size(row * columns) * (bits_of(tensor.dtype) / 8);
}

bool same(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

}  // namespace

std::vector<BlockFactors> pack_blocks(const Target& target, std::optional<DType> held_in) {
  std::vector<BlockFactors> blocks;
  for (const Block& block : target.blocks) {
    BlockFactors factors;
    for (const Addition& addition : block.additions)
      factors.push_back(pack_right(addition, held_in));
    blocks.push_back(std::move(factors));
  }
  return blocks;
}

float row_norm(const float* values, std::int64_t n) {
  constexpr std::int64_t kLanes = 8, kGroup = 4;
  std::array<float, kLanes> lanes{};
  std::int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes)
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const float square = values[j + lane] * values[j + lane];
      lanes[size(lane)] += square;
    }
  float total = lanes[0];
  for (std::size_t lane = 1; lane < lanes.size(); ++lane) total += lanes[lane];
  for (; j + kGroup <= n; j += kGroup)
    for (std::int64_t i = 0; i < kGroup; ++i) {
      const float square = values[j + i] * values[j + i];
      total += square;
    }
  for (; j < n; ++j) total = std::fma(values[j], values[j], total);
  return std::sqrt(total);
}

RowBlock::RowBlock(const Target& target, const std::vector<BlockFactors>& factors,
                   std::vector<Rounding> ways, const Kernels& kernels)
    : target_(target), factors_(factors), ways_(std::move(ways)), kernels_(kernels) {
  if (target.magnitude) magnitude_ = target.magnitude->to_f32();
  if (!ways_.empty() && ways_.front().rounds_factors) held_in_ = ways_.front().compute;
  for (std::vector<float>* row : {&base_, &merged_, &values_, &rounded_, &total_})
    row->resize(size(target.columns));
}

const Block* RowBlock::block_of(std::int64_t row) const {
  const auto after =
      std::upper_bound(target_.blocks.begin(), target_.blocks.end(), row,
                       [](std::int64_t wanted, const Block& b) { return wanted < b.first_row; });
  return after == target_.blocks.begin() ? nullptr : &*std::prev(after);
}

std::int64_t RowBlock::rows_at_once(std::int64_t row) const {
  constexpr std::int64_t kTile = 12;  // divides the row tiles of every product kernel
  const std::int64_t fitting = kCachedElements / std::max<std::int64_t>(1, target_.columns);
  const std::int64_t rows = std::clamp<std::int64_t>(fitting / kTile * kTile, kTile, 96);
  const Block* block = block_of(row);
  return block == nullptr ? rows : std::min(rows, block->first_row + block->rows - row);
}

void RowBlock::multiply(std::int64_t first, std::int64_t count) {
  block_ = block_of(first);
  if (block_ == nullptr) return;
  const BlockFactors& right = factors_[size(block_ - target_.blocks.data())];
  const std::size_t n = block_->additions.size();
  left_.resize(n);
  products_.resize(n);
  updates_.resize(n);
  for (std::size_t i = 0; i < n; ++i) {
    // The same product twice in a row (nn.MultiheadAttention's out_proj) is made once.
    const Addition& addition = block_->additions[i];
    const bool repeats = i > 0 &&
                         block_->additions[i - 1].a.bytes.data() == addition.a.bytes.data() &&
                         block_->additions[i - 1].b.bytes.data() == addition.b.bytes.data() &&
                         block_->additions[i - 1].is_transposed == addition.is_transposed;
    updates_[i].resize(size(target_.columns));
    if (repeats) {
      left_[i] = left_[i - 1];
      products_[i] = products_[i - 1];
      continue;
    }
    gather_left(addition, first - block_->first_row, count, held_in_, left_[i]);
    products_[i].resize(size(count * target_.columns));
    kernels_.multiply(left_[i].data(), count, right[i], products_[i].data());
  }
}

void RowBlock::sum_up(const Rounding& way, const std::vector<const float*>& updates, std::size_t n,
                      const float* start, float* values) {
  std::copy(start, start + n, values);
  kernels_.round(way.compute, values, n);
  for (std::size_t i = 0; i < updates.size(); ++i) {
    const float* update = updates[i];
    // DoRA sums in f32 and rounds once, after the magnitude.
    if (way.compute != DType::f32 &&
        (way.rounds_factors ||
         (!target_.magnitude && (way.rounds_update || block_->additions[i].always_rounds)))) {
      std::copy(update, update + n, rounded_.data());
      kernels_.round(way.compute, rounded_.data(), n);
      update = rounded_.data();
    }
    kernels_.add(values, update, n);
    if (!target_.magnitude || way.rounds_factors) kernels_.round(way.compute, values, n);
  }
}

void RowBlock::finish(std::int64_t row, const Rounding& way, float* values) {
  const std::size_t n = size(target_.columns);
  if (target_.magnitude) {
    float norm = row_norm(values, target_.columns);
    if (way.rounds_factors) kernels_.round(way.compute, &norm, 1);
    float magnitude = magnitude_[size(row)];
    if (way.rounds_factors) kernels_.round(way.compute, &magnitude, 1);
    float factor = magnitude / norm;
    if (way.rounds_factors) kernels_.round(way.compute, &factor, 1);
    kernels_.scale(values, factor, values, n);
    kernels_.round(way.compute, values, n);
  }
  if (const auto token = target_.token_of(row)) {
    kernels_.load(target_.token_rows.dtype, row_bytes(target_.token_rows, *token, target_.columns),
                  values, n);
    kernels_.round(way.compute, values, n);
  }
  kernels_.round(target_.merged.dtype, values, n);
}

bool RowBlock::gives_merged_row(std::int64_t row, std::int64_t index, const Rounding& way) {
  const std::size_t n = size(target_.columns);
  sum_up(way, update_rows_, n, base_.data(), values_.data());
  finish(row, way, values_.data());
  if (kernels_.equal(values_.data(), merged_.data(), n)) return true;
  if (block_ == nullptr || target_.magnitude || target_.token_of(row)) return false;
  // Elements of the other order of summation, one by one: only matrices with few rows or columns,
  // and the borders of others, have any.
  const BlockFactors& right = factors_[size(block_ - target_.blocks.data())];
  for (std::size_t j = 0; j < n; ++j) {
    if (same(values_[j], merged_[j])) continue;
    std::vector<float> separate(block_->additions.size());
    std::vector<const float*> one;
    for (std::size_t i = 0; i < separate.size(); ++i) {
      const float product = multiply_separately(left_[i].data() + index * right[i].rank, right[i],
                                                static_cast<std::int64_t>(j));
      separate[i] = product * static_cast<float>(block_->additions[i].scaling);
      one.push_back(&separate[i]);
    }
    float value = 0;
    sum_up(way, one, 1, &base_[j], &value);
    kernels_.round(target_.merged.dtype, &value, 1);
    if (!same(value, merged_[j])) return false;
  }
  return true;
}

unsigned RowBlock::check(std::int64_t first, std::int64_t count, unsigned alive, Sums& sums) {
  updates_.clear();
  multiply(first, count);
  update_rows_.clear();
  for (const std::vector<float>& update : updates_) update_rows_.push_back(update.data());
  const std::size_t n = size(target_.columns);
  for (std::int64_t index = 0; index < count; ++index) {
    const std::int64_t row = first + index;
    kernels_.load(target_.base.dtype, row_bytes(target_.base, row, target_.columns), base_.data(),
                  n);
    kernels_.load(target_.merged.dtype, row_bytes(target_.merged, row, target_.columns),
                  merged_.data(), n);
    for (std::size_t i = 0; i < updates_.size(); ++i)
      kernels_.scale(products_[i].data() + index * target_.columns,
                     static_cast<float>(block_->additions[i].scaling), updates_[i].data(), n);
    for (std::size_t way = 0; way < ways_.size(); ++way)
      if ((alive >> way & 1U) != 0 && !gives_merged_row(row, index, ways_[way]))
        alive &= ~(1U << way);
    if (updates_.empty() || target_.token_of(row)) continue;
    const float* wanted = updates_[0].data();
    if (updates_.size() > 1) {
      total_ = updates_[0];
      for (std::size_t i = 1; i < updates_.size(); ++i)
        kernels_.add(total_.data(), updates_[i].data(), n);
      wanted = total_.data();
    }
    kernels_.accumulate(base_.data(), merged_.data(), wanted, n, sums);
  }
  return alive;
}

}  // namespace lora::replay
