#include "ops/replay/row_block.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "lora/base/error.h"
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
  for (std::vector<float>* row : {&base_, &merged_, &values_, &rounded_, &total_, &exact_})
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
    const Addition& addition = block_->additions[i];
    const bool rounds_first =
        addition.always_rounds || (way.rounds_update && !addition.never_rounds);
    if (way.compute != DType::f32 && (way.rounds_factors || (!target_.magnitude && rounds_first))) {
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
  if (target_.magnitude && column_factors_ != nullptr) {
    for (std::size_t j = 0; j < n; ++j) values[j] *= (*column_factors_)[j];
    kernels_.round(way.compute, values, n);
  } else if (target_.magnitude) {
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

void RowBlock::compute(std::int64_t row, const Rounding& way) {
  sum_up(way, update_rows_, size(target_.columns), base_.data(), values_.data());
  finish(row, way, values_.data());
}

bool RowBlock::gives_merged_row(std::int64_t row, std::int64_t index, const Rounding& way) {
  const std::size_t n = size(target_.columns);
  compute(row, way);
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

void RowBlock::begin(std::int64_t first, std::int64_t count) {
  updates_.clear();
  multiply(first, count);
  update_rows_.clear();
  for (const std::vector<float>& update : updates_) update_rows_.push_back(update.data());
}

// The base's row, and that of every update.
void RowBlock::begin_row(std::int64_t row, std::int64_t index) {
  const std::size_t n = size(target_.columns);
  kernels_.load(target_.base.dtype, row_bytes(target_.base, row, target_.columns), base_.data(), n);
  for (std::size_t i = 0; i < updates_.size(); ++i)
    kernels_.scale(products_[i].data() + index * target_.columns,
                   static_cast<float>(block_->additions[i].scaling), updates_[i].data(), n);
}

const float* RowBlock::total_update() {
  if (updates_.size() == 1) return updates_[0].data();
  total_ = updates_[0];
  for (std::size_t i = 1; i < updates_.size(); ++i)
    kernels_.add(total_.data(), updates_[i].data(), size(target_.columns));
  return total_.data();
}

void RowBlock::sum_change(std::int64_t row, const float* merged, Sums& sums) {
  if (updates_.empty() || target_.token_of(row)) return;
  kernels_.accumulate(base_.data(), merged, total_update(), size(target_.columns), sums);
}

unsigned RowBlock::check(std::int64_t first, std::int64_t count, unsigned alive, Sums& sums) {
  begin(first, count);
  const std::size_t n = size(target_.columns);
  for (std::int64_t index = 0; index < count; ++index) {
    const std::int64_t row = first + index;
    begin_row(row, index);
    kernels_.load(target_.merged.dtype, row_bytes(target_.merged, row, target_.columns),
                  merged_.data(), n);
    for (std::size_t way = 0; way < ways_.size(); ++way)
      if ((alive >> way & 1U) != 0 && !gives_merged_row(row, index, ways_[way]))
        alive &= ~(1U << way);
    sum_change(row, merged_.data(), sums);
  }
  return alive;
}

void RowBlock::require_finite(std::int64_t row) const {
  const auto is_finite = [](const std::vector<float>& values) {
    // An exponent of all ones; the loop has no branch, so that it costs next to nothing.
    std::uint32_t largest = 0;
    for (const float value : values)
      largest = std::max(largest, std::bit_cast<std::uint32_t>(value) & 0x7FFFFFFFU);
    return largest < 0x7F800000U;
  };
  if (is_finite(values_)) return;
  const bool is_base = !is_finite(base_);
  throw Error(ErrorKind::malformed,
              std::string("cannot merge: ") +
                  (is_base ? std::string(target_.is_saved ? "the adapter's copy of "
                                                          : "the base's tensor ") +
                                 target_.base_name + " holds NaN or infinity in row "
                           : target_.base_name + " would hold NaN or infinity in row ") +
                  std::to_string(row) + ", expected finite numbers")
      .in_tensor(target_.base_name);
}

// Whether the row is base + one update, rounded once: what Kernels::merge does in one pass.
bool RowBlock::adds_one_update(std::int64_t row) const {
  const auto is_taken = [](DType dtype) { return dtype == DType::f32 || dtype == DType::bf16; };
  const Rounding& way = ways_.front();
  if (products_.size() != 1 || block_ == nullptr || target_.magnitude || way.rounds_factors ||
      !is_taken(target_.base.dtype) || !is_taken(target_.merged.dtype) || target_.token_of(row))
    return false;
  // Where the sum is made in bf16, so is the base: rounding it first changes nothing.
  const bool rounds_first = block_->additions.front().always_rounds || way.rounds_update;
  return way.compute == DType::f32 || (way.compute == target_.merged.dtype &&
                                       target_.base.dtype == way.compute && !rounds_first);
}

void RowBlock::write(std::int64_t first, std::int64_t count, std::byte* out, Sums& sums) {
  begin(first, count);
  const std::size_t n = size(target_.columns);
  const std::size_t width = n * bits_of(target_.merged.dtype) / 8;
  for (std::int64_t index = 0; index < count; ++index, out += width) {
    const std::int64_t row = first + index;
    if (adds_one_update(row) &&
        kernels_.merge(target_.base.dtype, target_.merged.dtype,
                       products_[0].data() + index * target_.columns,
                       static_cast<float>(block_->additions[0].scaling),
                       row_bytes(target_.base, row, target_.columns), out, n, sums))
      continue;
    begin_row(row, index);
    compute(row, ways_.front());
    require_finite(row);
    narrow(values_, target_.merged.dtype, out);
    if (!target_.magnitude) {
      sum_change(row, values_.data(), sums);
      continue;
    }
    // DoRA rescales the base too: what was meant is the whole change before its rounding.
    if (updates_.empty() || target_.token_of(row)) continue;
    merged_ = values_;
    sum_up({DType::f32, false, false}, update_rows_, n, base_.data(), values_.data());
    float factor = 0;
    if (column_factors_ == nullptr)
      factor = magnitude_[size(row)] / row_norm(values_.data(), target_.columns);
    for (std::size_t j = 0; j < n; ++j)
      exact_[j] = values_[j] * (column_factors_ ? (*column_factors_)[j] : factor) - base_[j];
    kernels_.accumulate(base_.data(), merged_.data(), exact_.data(), n, sums);
  }
}

void RowBlock::add_column_squares(std::int64_t first, std::int64_t count,
                                  std::vector<double>& squares) {
  begin(first, count);
  for (std::int64_t index = 0; index < count; ++index) {
    begin_row(first + index, index);
    sum_up(ways_.front(), update_rows_, size(target_.columns), base_.data(), values_.data());
    for (std::size_t j = 0; j < values_.size(); ++j)
      squares[j] += static_cast<double>(values_[j]) * static_cast<double>(values_[j]);
  }
}

}  // namespace lora::replay
