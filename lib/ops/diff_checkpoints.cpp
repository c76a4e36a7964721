#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include "checkpoint/natural_order.h"
#include "lora/base/equal_bytes.h"
#include "lora/base/parallel.h"
#include "lora/base/read_ahead.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/ops/diff.h"
#include "ops/diff_groups.h"
#include "ops/diff_rank.h"
#include "ops/diff_values.h"

namespace lora {
namespace {

std::string form_of(const Tensor& tensor) {
  return std::string(to_string(tensor.dtype)) + " " + shape_to_string(tensor.shape);
}

std::int64_t count_changed_bytes(const Tensor& a, const Tensor& b) {
  const std::size_t width = std::max<std::size_t>(1, bits_of(a.dtype) / 8);
  std::int64_t changed = 0;
  for (std::size_t i = 0; i + width <= a.bytes.size(); i += width)
    changed += std::memcmp(a.bytes.data() + i, b.bytes.data() + i, width) != 0 ? 1 : 0;
  return changed;
}

std::set<std::string> names_of(const Checkpoint& checkpoint) {
  std::set<std::string> names;
  for (const auto& [name, tensor] : checkpoint.tensors) names.insert(name);
  for (const auto& [name, target] : checkpoint.aliases) names.insert(name);
  return names;
}

std::string block_of(const std::string& name) {
  for (std::size_t start = 0; start < name.size();) {
    const std::size_t end = std::min(name.find('.', start), name.size());
    const auto part = std::string_view(name).substr(start, end - start);
    if (!part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos)
      return name.substr(0, end);
    start = end + 1;
  }
  return name.substr(0, name.find('.'));
}

// One tensor of both checkpoints.
struct Common {
  const std::string& name;
  const Tensor& a;
  const Tensor& b;
  bool is_equal = false;
  TensorDifference difference;
  std::vector<ValuePiece> pieces;
};

class Comparison {
 public:
  Comparison(const Checkpoint& a, const Checkpoint& b, const CheckpointDiffOptions& options)
      : a_(a), b_(b), options_(options) {}

  CheckpointDiff run() {
    const std::set<std::string> left = names_of(a_);
    const std::set<std::string> right = names_of(b_);
    std::set_difference(left.begin(), left.end(), right.begin(), right.end(),
                        std::back_inserter(result_.only_in_a));
    std::set_difference(right.begin(), right.end(), left.begin(), left.end(),
                        std::back_inserter(result_.only_in_b));
    for (const std::string& name : left)
      if (right.contains(name))
        common_.push_back({name, *a_.find(name), *b_.find(name), false, {}, {}});
    compare_bytes();
    compare_all_values();
    examine_ranks();
    collect();
    return std::move(result_);
  }

 private:
  static std::span<const std::byte> part_of(const Tensor& tensor, std::int64_t first,
                                            std::int64_t count) {
    const std::size_t width = bits_of(tensor.dtype);
    return tensor.bytes.subspan(static_cast<std::size_t>(first) * width / 8,
                                static_cast<std::size_t>(count) * width / 8);
  }

  void drop(const Tensor& a, const Tensor& b, std::int64_t first, std::int64_t count) const {
    drop_pages(a_.mappings, part_of(a, first, count));
    drop_pages(b_.mappings, part_of(b, first, count));
  }

  // Equal tensors cost one comparison of their bytes; in changed ones it ends at the first change.
  void compare_bytes() {
    std::atomic<std::uint64_t> done{0};
    parallel_for(common_.size(), options_.threads, [&](std::size_t i) {
      options_.sinks.throw_if_cancelled();
      Common& tensor = common_[i];
      tensor.is_equal = tensor.a.dtype == tensor.b.dtype && tensor.a.shape == tensor.b.shape &&
                        has_equal_bytes(tensor.a, tensor.b);
      if (tensor.is_equal) {
        drop_pages(a_.mappings, tensor.a.bytes);
        drop_pages(b_.mappings, tensor.b.bytes);
        options_.sinks.report(++done, common_.size());
        return;
      }
      TensorDifference& difference = tensor.difference;
      difference.name = tensor.name;
      difference.a = form_of(tensor.a);
      difference.b = form_of(tensor.b);
      difference.elements = tensor.a.numel();
      const bool has_same_shape = tensor.a.shape == tensor.b.shape;
      difference.what = !has_same_shape                    ? "shape"
                        : tensor.a.dtype == tensor.b.dtype ? "values"
                                                           : "dtype";
      if (has_same_shape && is_float(tensor.a.dtype) && is_float(tensor.b.dtype)) {
        tensor.pieces.resize(
            static_cast<std::size_t>((difference.elements + kValuesAtOnce - 1) / kValuesAtOnce));
      } else if (has_same_shape && tensor.a.dtype == tensor.b.dtype) {
        difference.changed_elements = count_changed_bytes(tensor.a, tensor.b);
      }
    });
    done_ = done;
  }

  void compare_all_values() {
    std::vector<std::pair<Common*, std::int64_t>> work;
    for (Common& tensor : common_)
      for (std::size_t piece = 0; piece < tensor.pieces.size(); ++piece)
        work.emplace_back(&tensor, static_cast<std::int64_t>(piece));
    // Far enough ahead that the disk is busy while both files are compared.
    constexpr std::size_t kAhead = 8;
    const auto fetch = [&](std::size_t i) {
      if (i >= work.size()) return;
      const auto& [tensor, piece] = work[i];
      const std::int64_t first = piece * kValuesAtOnce;
      const std::int64_t count = std::min(kValuesAtOnce, tensor->a.numel() - first);
      read_ahead(part_of(tensor->a, first, count));
      read_ahead(part_of(tensor->b, first, count));
    };
    for (std::size_t i = 0; i < kAhead; ++i) fetch(i);
    std::atomic<std::uint64_t> done{0};
    parallel_for(work.size(), options_.threads, [&](std::size_t i) {
      options_.sinks.throw_if_cancelled();
      fetch(i + kAhead);
      auto& [tensor, piece] = work[i];
      const std::int64_t first = piece * kValuesAtOnce;
      const std::int64_t count = std::min(kValuesAtOnce, tensor->a.numel() - first);
      tensor->pieces[static_cast<std::size_t>(piece)] =
          compare_values(tensor->a, tensor->b, first, count);
      drop(tensor->a, tensor->b, first, count);
      options_.sinks.report(done_ + ++done * (common_.size() - done_) / work.size(),
                            common_.size());
    });
    for (Common& tensor : common_)
      if (!tensor.pieces.empty()) join(tensor.a, tensor.b, tensor.pieces, tensor.difference);
  }

  void examine_ranks() {
    std::vector<Common*> matrices;
    for (Common& tensor : common_) {
      const bool is_small =
          options_.rank_elements < 0 || tensor.difference.elements <= options_.rank_elements;
      if (!tensor.pieces.empty() && tensor.difference.changed_elements > 0 && is_small)
        matrices.push_back(&tensor);
    }
    parallel_for(matrices.size(), options_.threads, [&](std::size_t i) {
      options_.sinks.throw_if_cancelled();
      Common& tensor = *matrices[i];
      tensor.difference.rank =
          difference_rank(tensor.name, tensor.a, tensor.b, options_.largest_rank);
      drop(tensor.a, tensor.b, 0, tensor.a.numel());
    });
  }

  void collect() {
    std::map<std::string, BlockDifference> blocks;
    std::map<std::string, UlpHistogram> ulps;
    std::vector<ModulePlace> places;
    std::vector<double> relative;
    for (Common& tensor : common_) {
      const TensorDifference& difference = tensor.difference;
      BlockDifference& block = blocks[block_of(tensor.name)];
      block.tensors += 1;
      block.changed += tensor.is_equal ? 0 : 1;
      block.elements += tensor.a.numel();
      block.changed_elements += difference.changed_elements;
      block.difference += difference.difference * difference.difference;
      block.norm_a += difference.norm_a * difference.norm_a;
      block.max_absolute = std::max(block.max_absolute, difference.max_absolute);
      if (tensor.a.shape.size() >= 2) {
        const std::string module = tensor.name.substr(0, tensor.name.rfind('.'));
        places.push_back(place_of(module));
        relative.push_back(difference.relative);
      }
      if (tensor.is_equal) {
        ++result_.equal;
        continue;
      }
      if (!difference.ulps.counts.empty()) {
        UlpHistogram& total = ulps[difference.ulps.dtype];
        total.dtype = difference.ulps.dtype;
        total.counts.resize(difference.ulps.counts.size());
        total.not_comparable += difference.ulps.not_comparable;
        for (std::size_t i = 0; i < total.counts.size(); ++i)
          total.counts[i] += difference.ulps.counts[i];
      }
      result_.changed.push_back(std::move(tensor.difference));
    }
    for (auto& [name, block] : blocks) {
      block.name = name;
      block.difference = std::sqrt(block.difference);
      block.norm_a = std::sqrt(block.norm_a);
      block.relative = relative_to(block.difference, block.norm_a);
      result_.blocks.push_back(block);
    }
    std::sort(result_.blocks.begin(), result_.blocks.end(),
              [](const auto& x, const auto& y) { return natural_less(x.name, y.name); });
    for (auto& [dtype, histogram] : ulps) result_.ulps.push_back(std::move(histogram));
    result_.relative_map = heat_map(places, relative);
    std::stable_sort(result_.changed.begin(), result_.changed.end(),
                     [](const auto& x, const auto& y) { return x.relative > y.relative; });
  }

  const Checkpoint& a_;
  const Checkpoint& b_;
  const CheckpointDiffOptions& options_;
  std::vector<Common> common_;
  std::uint64_t done_ = 0;
  CheckpointDiff result_;
};

}  // namespace

CheckpointDiff diff(const Checkpoint& a, const Checkpoint& b,
                    const CheckpointDiffOptions& options) {
  return Comparison(a, b, options).run();
}

}  // namespace lora
