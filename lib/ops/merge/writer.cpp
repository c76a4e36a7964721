#include "ops/merge/writer.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "lora/base/read_ahead.h"
#include "ops/merge/finite.h"
#include "ops/replay/factors.h"
#include "ops/replay/row_block.h"

namespace lora::merging {
namespace {

using replay::Addition;
using replay::Block;
using replay::Rounding;
using replay::RowBlock;
using replay::Sums;
using replay::Target;

// Work of one thread between two looks at the clock; also what a thread keeps for itself.
constexpr std::int64_t kPieceElements = 1 << 17;
constexpr std::uint64_t kCopyBytes = 8 << 20;
constexpr std::uint64_t kReadAhead = 32 << 20;
constexpr std::uint64_t kLargestBatch = 4 << 20;  // read again at once, by the write
// Below this a thread costs more than it takes off, while others hash.
constexpr std::int64_t kAlone = 1 << 21;

std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

bool replays(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

bool is_computed(const Target& target) {
  return !target.blocks.empty() || !target.replaced_rows.empty();
}

// PEFT's way where there is one. A change of dtype and the sum of several adapters have none: they
// are made in f32 and rounded once.
Rounding way_of(const Target& target, bool is_safe_merge) {
  const DType merged = target.merged.dtype;
  if (is_safe_merge) return {merged, merged != DType::f32, false};
  const bool is_plain = target.base.dtype == merged && target.adapters <= 1;
  return {is_plain || target.is_saved ? merged : DType::f32, false, false};
}

std::uint64_t factor_bytes(const Target& target) {
  std::uint64_t bytes = 0;
  for (const Block& block : target.blocks)
    for (const Addition& addition : block.additions)
      bytes += 4 * static_cast<std::uint64_t>(rank_of(addition)) *
               static_cast<std::uint64_t>(target.columns + replay::kPanel);
  return bytes;
}

class TargetWriter {
 public:
  TargetWriter(const Target& target, const WriterOptions& options)
      : target_(target),
        options_(options),
        way_(way_of(target, options.is_safe_merge)),
        factors_(replay::pack_blocks(target, std::nullopt)) {
    const std::int64_t columns = std::max<std::int64_t>(1, target.columns);
    constexpr std::int64_t kTile = 12;  // divides the row tiles of every product kernel
    rows_ = std::max(kTile, kPieceElements / columns / kTile * kTile);
    row_bytes_ = size(target.columns) * bits_of(target.merged.dtype) / 8;
    const std::uint64_t piece = std::max<std::uint64_t>(1, size(rows_) * row_bytes_);
    const std::uint64_t batch = std::min(kLargestBatch, options.max_memory / 8);
    pieces_ = std::max<std::size_t>(1, batch / piece);
  }

  // One of the threads hands out a batch while the others make the next.
  Sums write(const Streams& streams) {
    if (target_.magnitude && target_.is_norm_by_column) find_column_factors();
    Sums total;
    Batch made;
    const auto hand_out = [&] {
      if (made.keep) streams.out(made.bytes);
    };
    for (std::int64_t first = 0; first < target_.rows;) {
      options_.sinks.throw_if_cancelled();
      const std::int64_t rows =
          std::min(static_cast<std::int64_t>(pieces_) * rows_, target_.rows - first);
      const std::size_t bytes = size(rows) * row_bytes_;
      const std::shared_ptr<std::byte> batch = options_.buffers.take(bytes);
      read_ahead(base_rows(first + rows, pieces_ * size(rows_)));
      std::vector<Sums> sums(piece_count(rows));
      for_pieces(first, rows, hand_out,
                 [&](std::size_t i, RowBlock& block, std::int64_t at, std::int64_t count) {
                   block.write(at, count, batch.get() + size(at - first) * row_bytes_, sums[i]);
                 });
      for (const Sums& part : sums) total.add(part);
      drop_pages(options_.mappings, base_rows(first, size(rows)));
      made = {{batch.get(), bytes}, batch};
      if (streams.beside) streams.beside(made);
      first += rows;
    }
    hand_out();
    return total;
  }

 private:
  std::size_t piece_count(std::int64_t rows) const { return size((rows + rows_ - 1) / rows_); }

  template <typename Beside, typename Body>
  void for_pieces(std::int64_t first, std::int64_t rows, const Beside& beside, const Body& body) {
    const int threads = target_.merged.numel() < kAlone ? 1 : options_.threads;
    parallel_for(1 + piece_count(rows), threads, [&](std::size_t task) {
      if (task == 0) return beside();
      const std::size_t i = task - 1;
      std::unique_ptr<RowBlock> block = borrow();
      const std::int64_t begin = first + static_cast<std::int64_t>(i) * rows_;
      const std::int64_t end = std::min(begin + rows_, first + rows);
      for (std::int64_t row = begin; row < end;) {
        const std::int64_t count = std::min(block->rows_at_once(row), end - row);
        body(i, *block, row, count);
        row += count;
      }
      const std::lock_guard lock(mutex_);
      idle_.push_back(std::move(block));
    });
  }

  // Rows in work keep their memory from one piece to the next.
  std::unique_ptr<RowBlock> borrow() {
    std::unique_ptr<RowBlock> block;
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        block = std::move(idle_.back());
        idle_.pop_back();
      }
    }
    if (!block)
      block = std::make_unique<RowBlock>(target_, factors_, std::vector<Rounding>{way_},
                                         replay::best_kernels());
    if (!column_factors_.empty()) block->set_column_factors(&column_factors_);
    return block;
  }

  // A pass of its own: the norm of a column is known when all rows are.
  void find_column_factors() {
    std::vector<double> squares(size(target_.columns));
    const auto batch = static_cast<std::int64_t>(pieces_) * rows_;
    for (std::int64_t first = 0; first < target_.rows; first += batch) {
      options_.sinks.throw_if_cancelled();
      const std::int64_t rows = std::min(batch, target_.rows - first);
      std::vector<std::vector<double>> parts(piece_count(rows),
                                             std::vector<double>(squares.size()));
      for_pieces(
          first, rows, [] {},
          [&](std::size_t i, RowBlock& block, std::int64_t at, std::int64_t count) {
            block.add_column_squares(at, count, parts[i]);
          });
      for (const std::vector<double>& part : parts)
        for (std::size_t j = 0; j < squares.size(); ++j) squares[j] += part[j];
      drop_pages(options_.mappings, base_rows(first, size(rows)));
    }
    const std::vector<float> magnitude = target_.magnitude->to_f32();
    std::vector<float> factors;
    for (std::size_t j = 0; j < squares.size(); ++j)
      factors.push_back(magnitude[j] / static_cast<float>(std::sqrt(squares[j])));
    column_factors_ = std::move(factors);
  }

  // Up to `rows` rows of the base, as stored.
  std::span<const std::byte> base_rows(std::int64_t first, std::size_t rows) const {
    const std::size_t width = size(target_.columns) * bits_of(target_.base.dtype) / 8;
    const auto bytes = target_.base.bytes;
    const std::size_t start = std::min(bytes.size(), size(first) * width);
    return bytes.subspan(start, std::min(rows * width, bytes.size() - start));
  }

  const Target& target_;
  WriterOptions options_;
  Rounding way_;
  std::vector<replay::BlockFactors> factors_;
  std::vector<float> column_factors_;
  std::int64_t rows_ = 1;
  std::size_t row_bytes_ = 0, pieces_ = 1;
  std::mutex mutex_;
  std::vector<std::unique_ptr<RowBlock>> idle_;
};

void copy(const Target& target, const WriterOptions& options, const Streams& streams) {
  const std::span<const std::byte> bytes = target.base.bytes;
  for (std::size_t at = 0; at < bytes.size(); at += kCopyBytes) {
    options.sinks.throw_if_cancelled();
    const auto part = bytes.subspan(at, std::min<std::size_t>(kCopyBytes, bytes.size() - at));
    const auto rest = bytes.subspan(at + part.size());
    read_ahead(rest.first(std::min<std::size_t>(kReadAhead, rest.size())));
    streams.out(part);
    drop_pages(options.mappings, part);
  }
}

}  // namespace

struct Buffers::Pool {
  struct Memory {
    std::unique_ptr<std::byte[]> bytes;
    std::size_t size = 0;
  };
  static constexpr std::size_t kMost = 3;  // one being made, one on its way, one to be hashed
  std::mutex mutex;
  std::condition_variable returned;
  std::vector<Memory> free = std::vector<Memory>(kMost);
  std::function<bool()> work;
};

Buffers::Buffers() : pool_(std::make_shared<Pool>()) {}

void Buffers::while_waiting(std::function<bool()> work) const { pool_->work = std::move(work); }

std::shared_ptr<std::byte> Buffers::take(std::size_t bytes) {
  std::unique_lock lock(pool_->mutex);
  for (bool has_work = pool_->work != nullptr; has_work && pool_->free.empty();) {
    lock.unlock();
    has_work = pool_->work();
    lock.lock();
  }
  pool_->returned.wait(lock, [&] { return !pool_->free.empty(); });
  auto memory = std::make_shared<Pool::Memory>(std::move(pool_->free.back()));
  pool_->free.pop_back();
  lock.unlock();
  // Also when the allocation fails, the place goes back.
  std::shared_ptr<Pool::Memory> lent(memory.get(), [pool = pool_, memory](Pool::Memory*) {
    const std::lock_guard guard(pool->mutex);
    pool->free.push_back(std::move(*memory));
    pool->returned.notify_one();
  });
  if (memory->size < bytes) {
    memory->bytes = std::make_unique_for_overwrite<std::byte[]>(bytes);
    memory->size = bytes;
  }
  return {lent, memory->bytes.get()};
}

std::string why_not_written(const Target& target) {
  if (!target.not_replayed.empty()) return target.not_replayed;
  if (is_computed(target) && !(replays(target.base.dtype) && replays(target.merged.dtype)))
    return "updates are added to F32, BF16 and F16 only, it is " +
           std::string(
               to_string(replays(target.base.dtype) ? target.merged.dtype : target.base.dtype));
  return {};
}

void require_memory(const Target& target, const WriterOptions& options) {
  const std::uint64_t needed = factor_bytes(target);
  if (needed <= options.max_memory / 2) return;
  throw Error(ErrorKind::resources,
              "cannot merge " + target.base_name + ": its factors take " + std::to_string(needed) +
                  " bytes, expected at most half of "
                  "the " +
                  std::to_string(options.max_memory) + " that --max-memory allows")
      .in_tensor(target.base_name);
}

Sums write_target(const Target& target, const WriterOptions& options, const Streams& streams) {
  if (target.is_copy()) {
    copy(target, options, streams);
    return {};
  }
  if (replays(target.base.dtype) && replays(target.merged.dtype))
    return TargetWriter(target, options).write(streams);
  // F64 from or to: no kernel, and nothing is added.
  const Tensor cast = target.base.cast(target.merged.dtype);
  require_finite(target.base_name, target.base.dtype, target.base.bytes);
  streams.out(cast.bytes);
  if (streams.beside) streams.beside({cast.bytes, cast.keep_alive});
  return {};
}

}  // namespace lora::merging
