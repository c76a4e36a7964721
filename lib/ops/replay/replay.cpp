#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>

#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "ops/replay/bound.h"
#include "ops/replay/factors.h"
#include "ops/replay/row_block.h"
#include "ops/replay/target.h"

namespace lora::replay {
namespace {

// Work is handed out in pieces of about this many elements: small enough to balance the threads,
// large enough to hide what a piece costs.
constexpr std::int64_t kPieceElements = 1 << 20;

struct Piece {
  std::size_t target = 0;
  std::int64_t first_row = 0, rows = 0;
};

// Right factors of one target: made by the first piece that needs them, gone after the last.
struct Shared {
  std::once_flag once;
  std::vector<BlockFactors> factors;
  std::atomic<std::int64_t> pieces_left{0};
  std::atomic<unsigned> alive{0};
};

bool has_equal_rows(const Target& target, std::int64_t first, std::int64_t rows) {
  const std::size_t width =
      static_cast<std::size_t>(target.columns) * bits_of(target.base.dtype) / 8;
  const std::size_t start = static_cast<std::size_t>(first) * width;
  return std::memcmp(target.base.bytes.data() + start, target.merged.bytes.data() + start,
                     static_cast<std::size_t>(rows) * width) == 0;
}

class Pass {
 public:
  Pass(const std::vector<Target>& targets, const std::vector<std::size_t>& wanted,
       bool rounds_factors)
      : targets_(targets),
        wanted_(wanted),
        rounds_factors_(rounds_factors),
        shared_(targets.size()) {
    for (const std::size_t index : wanted) add_target(index);
  }

  void run(int threads, const Sinks& sinks, std::vector<Outcome>& outcomes) {
    std::vector<Sums> sums(pieces_.size());
    std::atomic<std::uint64_t> done{0};
    parallel_for(pieces_.size(), threads, [&](std::size_t i) {
      sinks.throw_if_cancelled();
      const Piece& piece = pieces_[i];
      check(piece, sums[i]);
      done += static_cast<std::uint64_t>(piece.rows * targets_[piece.target].columns);
      sinks.report(done, elements_, "replaying the merge");
    });
    for (std::size_t i = 0; i < pieces_.size(); ++i) outcomes[pieces_[i].target].sums.add(sums[i]);
    for (const std::size_t index : wanted_) conclude(index, outcomes[index]);
  }

 private:
  void add_target(std::size_t index) {
    const Target& target = targets_[index];
    const std::size_t ways = target.is_copy() ? 1 : roundings_of(target, rounds_factors_).size();
    shared_[index].alive = ways == 0 ? 0U : (1U << ways) - 1U;
    if (ways == 0) return;
    const std::int64_t rows =
        std::max<std::int64_t>(1, kPieceElements / std::max<std::int64_t>(1, target.columns));
    for (std::int64_t first = 0; first < target.rows; first += rows) {
      pieces_.push_back({index, first, std::min(rows, target.rows - first)});
      ++shared_[index].pieces_left;
    }
    elements_ += static_cast<std::uint64_t>(target.rows * target.columns);
  }

  void check(const Piece& piece, Sums& sums) {
    const Target& target = targets_[piece.target];
    Shared& shared = shared_[piece.target];
    if (target.is_copy()) {
      if (!has_equal_rows(target, piece.first_row, piece.rows)) shared.alive = 0;
      return;
    }
    const auto ways = roundings_of(target, rounds_factors_);
    std::call_once(shared.once, [&] {
      const auto held_in =
          rounds_factors_ ? std::optional<DType>(ways.front().compute) : std::nullopt;
      shared.factors = pack_blocks(target, held_in);
    });
    RowBlock block(target, shared.factors, ways, best_kernels());
    for (std::int64_t row = piece.first_row; row < piece.first_row + piece.rows;) {
      const std::int64_t count =
          std::min(block.rows_at_once(row), piece.first_row + piece.rows - row);
      shared.alive &= block.check(row, count, shared.alive.load(), sums);
      row += count;
    }
    if (--shared.pieces_left == 0) shared.factors = {};
  }

  void conclude(std::size_t index, Outcome& outcome) const {
    const Target& target = targets_[index];
    const unsigned alive = shared_[index].alive.load();
    if (target.is_copy()) {
      if (alive != 0) outcome.proof = target.is_saved ? MergeProof::saved : MergeProof::unchanged;
      return;
    }
    const auto ways = roundings_of(target, rounds_factors_);
    for (std::size_t way = 0; way < ways.size(); ++way) {
      if ((alive >> way & 1U) == 0) continue;
      outcome.compute = ways[way].compute;
      if (target.blocks.empty() && target.replaced_rows.empty())
        outcome.proof = target.is_saved ? MergeProof::saved : MergeProof::unchanged;
      else if (ways[way].rounds_factors)
        outcome.proof = MergeProof::held_low;
      else
        outcome.proof = ways[way].rounds_update ? MergeProof::safe_merge : MergeProof::merge;
      return;
    }
  }

  const std::vector<Target>& targets_;
  const std::vector<std::size_t>& wanted_;
  bool rounds_factors_;
  std::vector<Shared> shared_;
  std::vector<Piece> pieces_;
  std::uint64_t elements_ = 0;
};

bool is_low(DType dtype) { return dtype == DType::bf16 || dtype == DType::f16; }

std::vector<std::size_t> those(const std::vector<Outcome>& outcomes,
                               const std::vector<Target>& targets, bool with_factors) {
  std::vector<std::size_t> wanted;
  for (std::size_t i = 0; i < outcomes.size(); ++i)
    if (outcomes[i].proof == MergeProof::differs && (!with_factors || !targets[i].blocks.empty()))
      wanted.push_back(i);
  return wanted;
}

}  // namespace

std::optional<std::int64_t> Target::token_of(std::int64_t row) const {
  const auto found =
      std::lower_bound(replaced_rows.begin(), replaced_rows.end(), row,
                       [](const auto& entry, std::int64_t wanted) { return entry.first < wanted; });
  if (found == replaced_rows.end() || found->first != row) return std::nullopt;
  return found->second;
}

bool Target::is_copy() const {
  return blocks.empty() && replaced_rows.empty() && base.dtype == merged.dtype;
}

std::vector<Rounding> roundings_of(const Target& target, bool rounds_factors) {
  const auto replays = [](DType dtype) { return dtype == DType::f32 || is_low(dtype); };
  const DType base = target.base.dtype, merged = target.merged.dtype;
  if (!replays(base) || !replays(merged)) return {};
  std::vector<DType> computes{merged};
  for (const DType other : {base, DType::f32})
    if (std::find(computes.begin(), computes.end(), other) == computes.end())
      computes.push_back(other);
  std::vector<Rounding> ways;
  for (const DType compute : computes) {
    if (rounds_factors) {
      if (is_low(compute)) ways.push_back({compute, true, true});
      if (!ways.empty()) return ways;
      continue;
    }
    ways.push_back({compute, false, false});
    if (is_low(compute) && !target.blocks.empty()) ways.push_back({compute, true, false});
  }
  return ways;
}

std::vector<Outcome> replay(const std::vector<Target>& targets, int threads, const Sinks& sinks) {
  std::vector<Outcome> outcomes(targets.size());
  for (std::size_t i = 0; i < targets.size(); ++i) {
    outcomes[i].compute = targets[i].merged.dtype;
    if (!targets[i].not_replayed.empty() || !targets[i].misshaped.empty())
      outcomes[i].proof = MergeProof::not_replayed;
  }
  const auto all = those(outcomes, targets, false);
  Pass(targets, all, false).run(threads, sinks, outcomes);
  const auto left = those(outcomes, targets, true);
  std::vector<Outcome> held = outcomes;
  Pass(targets, left, true).run(threads, sinks, held);
  for (const std::size_t i : left)
    if (held[i].proof != MergeProof::differs) {
      outcomes[i].proof = held[i].proof;
      outcomes[i].compute = held[i].compute;
    }
  for (const std::size_t i : those(outcomes, targets, false))
    bound(targets[i], threads, sinks, outcomes[i]);
  return outcomes;
}

}  // namespace lora::replay
